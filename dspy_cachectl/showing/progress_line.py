"""A bar on one line of a terminal, however narrow: how much of how much is done, and how long it will take, stay."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len
from rich.progress import MofNCompleteColumn, Progress, Task, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dspy_cachectl.boundary.shown import shortened

BETWEEN_FACTS = " · "
_WIDEST_BAR = 40
_NARROWEST_BAR = 8
_NARROWEST_NAME = 12


class ProgressLine(Progress):
    """A `Progress` whose tasks have `facts`, the most important first. Those that have no room are left out, whole."""

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Lay the tasks out, each on a line."""
        table = Table.grid(padding=(0, 1), pad_edge=False)
        for task in tasks:
            parts = self._parts(task)
            for part in parts:
                width = part.width if isinstance(part, ProgressBar) else part.cell_len
                table.add_column(width=width, no_wrap=True)
            table.add_row(*parts)
        return table

    def _parts(self, task: Task) -> list[Text | ProgressBar]:
        """Return what stands beside each other: the name, the bar, how much, how long, and what there is to say."""
        much, left = MofNCompleteColumn().render(task), TimeRemainingColumn().render(task)
        first, *others = task.fields["facts"].split(BETWEEN_FACTS)
        # A blank between two parts, and none in the last column: a line that fills it goes on below in some terminals.
        room = self.console.width - 1 - sum(cell_len(text) + 1 for text in (much.plain, left.plain, first))
        name = shortened(task.description, max(_NARROWEST_NAME, min(cell_len(task.description), room // 2)))
        room -= cell_len(name) + 1
        if room < 0:
            first, room = shortened(first, cell_len(first) + room), 0
        for fact in others:
            if room - _NARROWEST_BAR - 1 < cell_len(BETWEEN_FACTS + fact):
                break
            first += BETWEEN_FACTS + fact
            room -= cell_len(BETWEEN_FACTS + fact)
        parts: list[Text | ProgressBar] = [Text(name)]
        if room > _NARROWEST_BAR:
            width = min(room - 1, _WIDEST_BAR)
            total = None if task.total is None else max(0, task.total)
            parts.append(ProgressBar(total, max(0, task.completed), width, animation_time=task.get_time()))
        return [*parts, much, left, *([Text(first)] if first else [])]
