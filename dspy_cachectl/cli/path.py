"""`dspy-cachectl path`."""

import typer


def show_path(context: typer.Context) -> None:
    """Print the folder of the store."""
    print(context.obj.folder())
