"""What `evaluate()` takes, looked at before anything is paid for."""

from __future__ import annotations

import math
from typing import Any

from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.statistics.quantiles import check_level


def check_arguments(*, repeats: int, mlflow: Any, level: float, timeout: float | None) -> None:
    """Refuse what cannot be used; see `evaluate`.

    Raises:
        ConfigurationError: One of them cannot be used; the message says which.
    """
    if repeats < 1:
        raise ConfigurationError(f"repeats must be 1 or more, not {repeats!r}")
    if mlflow is not None and not isinstance(mlflow, (bool, str)):
        raise ConfigurationError(f"mlflow is True, False or the id of a run, not {mlflow!r}")
    if mlflow:
        from dspy_cachectl.tracking.log import check_destination

        check_destination()
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if timeout is not None and not (is_number and 0 < timeout < math.inf):
        raise ConfigurationError(f"timeout is a number of seconds above 0, or None, not {timeout!r}")
    check_level(level)
