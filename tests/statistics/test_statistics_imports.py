"""What the statistics import, and what they say when it is not there."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dspy_cachectl import statistics
from dspy_cachectl.errors import MissingExtraError
from dspy_cachectl.statistics.bootstrap import bootstrap_interval
from dspy_cachectl.statistics.intervals import mean_interval
from dspy_cachectl.statistics.paired import mid_p_mcnemar, tango_interval
from dspy_cachectl.statistics.power import holm, sample_size, selection_bias
from dspy_cachectl.statistics.repeats import pass_at_k
from dspy_cachectl.statistics.variance import standard_error, variance_split
from tests.statistics.tables import table_of

TABLE = table_of([[0.0, 1.0], [1.0, 1.0], [0.5, 1.0]])


def test_they_are_pure() -> None:
    """When imported they import the standard library, our errors and each other, and nothing that is heavy."""
    for path in Path(statistics.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                is_ours = name == "dspy_cachectl.errors" or name.startswith(statistics.__name__)
                assert is_ours or name.partition(".")[0] in sys.stdlib_module_names, path.name


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("scipy.special", lambda: mean_interval(TABLE)),
        ("scipy.special", lambda: sample_size(0.05, variance=0.3)),
        ("scipy.stats", lambda: mid_p_mcnemar(3, 5)),
        ("scipy.stats", lambda: bootstrap_interval(TABLE, len)),
        ("scipy.optimize", lambda: tango_interval(3, 5, 10)),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, call: Callable[[], object]
) -> None:
    """Without scipy the error says what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dspy-cachectl\[stats\]'") as caught:
        call()
    assert caught.value.extra == "stats"


def test_what_does_not_need_it_works_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores, standard errors, variance, repeats and many comparisons are plain Python."""
    for module in ("numpy", "scipy", "scipy.special", "scipy.stats", "statsmodels"):
        monkeypatch.setitem(sys.modules, module, None)
    assert standard_error(TABLE).value > 0
    assert variance_split(TABLE).within is not None
    assert pass_at_k(TABLE, 2) == 1.0
    assert selection_bias(0.02, 10) > 0
    assert holm([0.01, 0.04]) == (0.02, 0.04)
