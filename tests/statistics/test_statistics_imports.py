"""What the statistics import, and what they say when it is not there."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from dspy_cachectl import statistics
from dspy_cachectl.errors import MissingExtraError
from dspy_cachectl.statistics import ScoreTable

OURS = "dspy_cachectl.statistics"
TABLE = ScoreTable.of([[0.0, 1.0], [1.0, 1.0], [0.5, 1.0]])
ONES = ScoreTable.of([1, 0, 1])


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """The modules that these statements import."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_they_are_pure() -> None:
    """They import the standard library, our errors and each other; what is heavy, inside functions only."""
    for path in Path(statistics.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        at_import, anywhere = imported(tree.body), imported(ast.walk(tree))
        ours = {name for name in anywhere if name.startswith("dspy_cachectl")}
        assert all(name == "dspy_cachectl.errors" or name.startswith(OURS) for name in ours), path.name
        assert {name.partition(".")[0] for name in at_import - ours} <= sys.stdlib_module_names, path.name
        heavy = {name.partition(".")[0] for name in anywhere - ours} - sys.stdlib_module_names
        assert heavy <= {"numpy", "scipy", "statsmodels"}, path.name


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("scipy.special", lambda: statistics.mean_interval(TABLE)),
        ("scipy.special", lambda: statistics.compare_paired(TABLE, ScoreTable.of([0.5, 0.25, 1]))),
        ("scipy.stats", lambda: statistics.wilson_interval(3, 5)),
        ("scipy.stats", lambda: statistics.mid_p_mcnemar(3, 5)),
        ("scipy.stats", lambda: statistics.bootstrap_interval(TABLE, len)),
        ("scipy.optimize", lambda: statistics.tango_interval(3, 5, 10)),
        ("scipy.stats", lambda: statistics.benjamini_hochberg([0.1, 0.2])),
        ("statsmodels.stats", lambda: statistics.holm([0.1, 0.2])),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, call: Callable[[], object]
) -> None:
    """Without scipy or statsmodels the error says what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dspy-cachectl\[stats\]'") as caught:
        call()
    assert caught.value.extra == "stats"


def test_what_needs_neither_works_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores, standard errors, variance, power and repeats are plain Python."""
    for module in ("numpy", "scipy", "scipy.special", "scipy.stats", "statsmodels"):
        monkeypatch.setitem(sys.modules, module, None)
    assert statistics.standard_error(TABLE).value > 0
    assert statistics.variance_split(TABLE).within is not None
    assert statistics.sample_size(0.05, variance=0.3) > 900
    assert statistics.pass_at_k(TABLE, 2) == 1.0
    assert statistics.selection_bias(0.02, 10) > 0


def test_every_public_name_is_there() -> None:
    """What `__all__` promises can be imported, in sorted order."""
    assert sorted(statistics.__all__) == statistics.__all__
    assert all(hasattr(statistics, name) for name in statistics.__all__)
