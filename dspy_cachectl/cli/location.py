"""Which store a command looks at."""

from dataclasses import dataclass
from pathlib import Path

import typer

from dspy_cachectl.errors import ConfigurationError, StoreUnavailableError
from dspy_cachectl.stores import folder_of


@dataclass(frozen=True)
class Location:
    """What `--store` or the environment named.

    Attributes:
        named: The store as it was written, or None where it was left to the configuration.
    """

    named: str | None

    def __str__(self) -> str:
        if self.named is not None:
            return self.named
        # Reading the configuration takes longer than all the rest of a command.
        from dspy_cachectl.config import settings

        return settings().store

    def folder(self) -> Path:
        """Return the store's folder, absolute. It need not exist, and is not made.

        Raises:
            typer.BadParameter: If the store is not a folder.
            StoreUnavailableError: If this user may not look at it.
        """
        location = str(self)
        try:
            folder = folder_of(location)
        except ConfigurationError as error:
            raise typer.BadParameter(str(error), param_hint="--store") from error
        if folder is None:
            message = f"{location!r} lives in the process that uses it and cannot be seen from here; name a folder"
            raise typer.BadParameter(message, param_hint="--store")
        try:
            is_a_file = folder.exists() and not folder.is_dir()
        except OSError as error:
            raise StoreUnavailableError(f"could not look at the store {str(folder)!r}: {error}") from error
        if is_a_file:
            raise typer.BadParameter(f"{str(folder)!r} is a file; name a folder", param_hint="--store")
        return folder.absolute()
