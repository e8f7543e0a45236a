"""Python in processes of their own: new interpreters, and forks of one that has imported what takes long."""

from tests.processes.leftovers import end_with_me
from tests.processes.python import COMMAND_MODULES, DSPY_MODULES, PYTEST_MODULES, ROOT, Finished, end_servers, python

__all__ = [
    "COMMAND_MODULES",
    "DSPY_MODULES",
    "PYTEST_MODULES",
    "ROOT",
    "Finished",
    "end_servers",
    "end_with_me",
    "python",
]
