"""What is missing, drawn again and again from what such calls have cost: a range that the truth is mostly in.

What varies are the calls themselves and, as the past is short, what is known of them: each round weights the past anew
(the Bayesian bootstrap: Rubin, Annals of Statistics 9 (1981) 130-134). Each round also makes all answers longer or
shorter by a factor: a small one, or where only other programs' calls to the model are known a large one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from dspy_cachectl.estimating.estimate import BATCH_SHARE
from dspy_cachectl.estimating.history import Past

_ROUNDS = 400
_LOW, _HIGH = 0.01, 0.99
_OF_OTHERS, _OF_ITSELF = 0.5, 0.6
"""How far the logarithm of the factor spreads by which answers are longer: those of another program may be 2.7 times as
long; of the same one it is less by the root of how many are known, among which are a few long ones, or none."""
_PROPORTIONS = (1.0, 0.5, 4.0)
"""What a token costs mostly that is read, read from the provider's cache, and written, beside one another."""
NAMES = tuple(one.name for one in fields(Past))
_REQUESTS, _PROMPT, _CACHED, _COMPLETION, _COST, _SECONDS, _CHARACTERS = map(
    NAMES.index, ("requests", "prompt", "cached", "completion", "cost", "seconds", "characters")
)


@dataclass(frozen=True)
class Missing:
    """Calls, or answers, that are missing and are drawn from one past.

    Attributes:
        past: What such have cost; never empty.
        number: How many are missing.
        paid: What is stored already of each, in order; empty for nothing.
        characters: How long what is asked is, in order; empty where that is not known.
        is_of_others: Whether the past is that of other programs.
    """

    past: Sequence[Past]
    number: int
    paid: Sequence[Past] = ()
    characters: Sequence[int] = ()
    is_of_others: bool = False


def simulated(missing: Sequence[Missing], *, seed: int = 0) -> dict[str, tuple[float, float, float]]:
    """Return what all that is missing costs: of each amount the lower end, the middle and the upper end.

    Args:
        missing: What is missing.
        seed: What chance is told by.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    rounds = np.zeros((_ROUNDS, len(NAMES)))
    for some in missing:
        table, characters = _table(some.past), np.array(some.characters) if len(some.characters) else None
        spread = _OF_OTHERS if some.is_of_others else _OF_ITSELF / np.sqrt(len(table))
        factors, prices = np.exp(spread * rng.standard_normal(_ROUNDS)), _prices(table)
        paid = np.nan_to_num(_table(some.paid)) if some.paid else np.zeros((1, len(NAMES)))
        for at in range(_ROUNDS):
            drawn = table[rng.choice(len(table), some.number, p=rng.dirichlet(np.ones(len(table))))]
            drawn = _longer(_as_long(drawn, characters, prices), factors[at], prices)
            rounds[at] += np.maximum(drawn - paid, 0.0).sum(axis=0)
    low, middle, high = np.quantile(rounds, (_LOW, 0.5, _HIGH), axis=0)
    return {name: (float(low[at]), float(middle[at]), float(high[at])) for at, name in enumerate(NAMES)}


def _table(past: Sequence[Past]) -> Any:
    """Return what calls, or answers, come to that are asked at once; NaN seconds where that is not known of any."""
    import numpy as np

    table = np.array([[getattr(one, name) for name in NAMES] for one in past], dtype=float)
    with_batch = (table[:, _SECONDS] == 0) & (table[:, _REQUESTS] > 0)
    table[with_batch, _COST] /= BATCH_SHARE
    table[with_batch, _SECONDS] = np.nan if with_batch.all() else table[~with_batch, _SECONDS].mean()
    return table


def _as_long(drawn: Any, characters: Any, prices: Any) -> Any:
    """Let calls read as many tokens as what is asked has, by how many characters a token of theirs had."""
    if characters is not None and (drawn[:, _CHARACTERS] > 0).all():
        read = characters * drawn[:, _PROMPT] / drawn[:, _CHARACTERS]
        drawn[:, _COST] += (read - drawn[:, _PROMPT]) * prices[0]
        drawn[:, _PROMPT] = read
    return drawn


def _longer(drawn: Any, factor: float, prices: Any) -> Any:
    """Make answers longer by a factor."""
    drawn[:, _COST] += (factor - 1) * drawn[:, _COMPLETION] * prices[2]
    drawn[:, _COMPLETION] *= factor
    drawn[:, _SECONDS] *= factor
    return drawn


def _prices(table: Any) -> Any:
    """Return what a token costs that is read, read from the provider's cache, and written, as the past has it.

    Where its calls are too much alike to tell that, it is as near to the usual proportions as the past allows.
    """
    import numpy as np

    asked = np.stack([table[:, _PROMPT] - table[:, _CACHED], table[:, _CACHED], table[:, _COMPLETION]], axis=1)
    if np.isnan(table[:, _COST]).any():
        return np.full(3, np.nan)
    usual = np.array(_PROPORTIONS) * table[:, _COST].sum() / max((asked @ _PROPORTIONS).sum(), 1.0)
    return np.maximum(usual + np.linalg.lstsq(asked, table[:, _COST] - asked @ usual, rcond=1e-6)[0], 0.0)
