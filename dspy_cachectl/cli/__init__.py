"""The command line, `dspy-cachectl`: one file per group of commands, and no logic in them.

`main` is the one thing to import. It knows every wing. Starting it must stay fast, so nothing here imports dspy,
litellm or mlflow; a command that needs them imports them when it runs.
"""

from dspy_cachectl.cli.app import main

__all__ = ["main"]
