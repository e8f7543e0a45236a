"""Whatever has a sheet shows itself: as text, in a terminal, and in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dspy_cachectl.reports.sheets import Sheet


class Shown(ABC):
    """A value that says what is to be shown of it, and leaves to `render` how."""

    @abstractmethod
    def _sheet(self) -> Sheet:
        """Return what is shown of it."""

    def __str__(self) -> str:
        from dspy_cachectl.reports.render import as_text

        return as_text(self._sheet())

    def __rich__(self) -> RenderableType:
        from dspy_cachectl.reports.render import as_panel

        return as_panel(self._sheet())

    def _repr_html_(self) -> str:
        from dspy_cachectl.reports.render import as_html

        return as_html(self._sheet())
