"""What DSPy makes of a stored answer: its result, and before that what it finds in its cache.

Of an answer whose shape is known both are made of its leaves (see `moulds`), and otherwise by the packages whose they
are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dspy.clients.base_lm import BaseLM
from dspy.clients.call_result import CACHE_FORMAT, CallResult

from dspy_cachectl.entries import records
from dspy_cachectl.entries.moulds import Mould, Recipe, UnlikeError, fields_of, model_of, parts_of
from dspy_cachectl.entries.shapes import Constant, Node, Shaped, Table, plain_at
from dspy_cachectl.errors import CorruptEntryError

_FORMAT, _OF_DSPY = "_dspy_format", Constant(CACHE_FORMAT)
_AGREED = 2
"""Of how many responses of a shape DSPy's outputs have to be the contents, before they are taken for them."""
_NEVER = 10**9


def is_record(opened: records.Opened) -> bool:
    """Tell whether an answer is DSPy's own record of one, as its native engine makes it."""
    if opened.shaped is not None:
        return parts_of(opened.shaped.shape.root).get(_FORMAT) == _OF_DSPY
    return isinstance(opened.value, dict) and opened.value.get(_FORMAT) == CACHE_FORMAT


def result_of_record(opened: records.Opened) -> CallResult:
    """Return what DSPy makes of its record of an answer.

    Raises:
        CorruptEntryError: If it makes nothing of it.
    """
    try:
        made = _loaded(opened)
        if isinstance(made.outputs, list):
            return made
        why = "its outputs are no list"
    except Exception as error:  # noqa: BLE001 - whatever DSPy does with what is not as it wrote it
        why = str(error)
    raise CorruptEntryError(f"DSPy makes no answer of what the entry holds: {why}")


def _loaded(opened: records.Opened) -> CallResult:
    shaped = opened.shaped
    if shaped is None:
        return CallResult.load(opened.answer())
    if shaped.shape.mould is None:
        shaped.shape.mould = Mould(shaped.shape.root, _result_of_record)
    result: CallResult = shaped.shape.mould.pour(shaped.leaves, lambda: CallResult.load(shaped.plain()))
    return result


def _result_of_record(recipe: Recipe, node: Node, plain: Any, made: CallResult) -> str:
    """Return how DSPy's result is made: its one response is the raw one, too. See `moulds.made_of`."""
    held = dict(vars(made))
    if len(made.responses) != 1 or held.pop("raw") is not made.responses[0]:
        raise UnlikeError
    fields, result = fields_of(recipe, node, plain, held), recipe.object(CallResult)
    recipe.do(f"{result}.__dict__ = {fields}")
    recipe.do(f"{result}.raw = {result}.responses[0]")
    return result


class _OfLiteLLM:
    """What is known of LiteLLM's responses of one shape.

    Attributes:
        mould: How they are made.
        cost: Where it says what it cost.
        agreed: Of how many DSPy's outputs were the contents of their choices; below 0 where they once were not.
    """

    def __init__(self, root: Node) -> None:
        self.mould, self.cost = Mould(root, _response_of_litellms), parts_of(root)["cost"]
        self.agreed = 0


def _response_of_litellms(recipe: Recipe, root: Node, plain: Any, made: Any) -> str:
    """Return how LiteLLM's response is made: of its fields, and of the cost where LiteLLM keeps that."""
    parts = parts_of(root)
    fields = Table({name: one for name, one in parts_of(parts["v"]).items() if name != "usage"})
    hidden = Table({"_hidden_params": Table({"response_cost": parts["cost"]})})
    private = hidden, {"_hidden_params": {"response_cost": plain["cost"]}}
    return model_of(recipe, fields, plain["v"], made, private)


def found_in_cache(opened: records.Opened) -> Any:
    """Return what DSPy finds in its cache: a response of LiteLLM's says what it used now, which is nothing."""
    if opened.shaped is not None and opened.is_root_only:
        return _response_of_litellm(opened, opened.shaped)
    return _as_hit(opened.answer())


def _response_of_litellm(opened: records.Opened, shaped: Shaped) -> Any:
    shape, leaves = shaped
    if shape.mould is None:
        if not {"v", "cost"} <= parts_of(shape.root).keys():
            return opened.answer()  # which says what is wrong
        shape.mould = _OfLiteLLM(shape.root)

    return shape.mould.mould.pour(leaves, lambda: _as_hit(opened.answer()))


def _as_hit(answer: Any) -> Any:
    if hasattr(answer, "usage"):
        answer.usage = {}  # nothing was used now; DSPy counts usage from here
        # Strict response models refuse undeclared attributes, so it is set past them, as DSPy does.
        object.__setattr__(answer, "cache_hit", True)
    return answer


def result_of(
    answer: Any,
    opened: records.Opened | None,
    lm: BaseLM,
    kwargs: Mapping[str, Any],
    sent: Callable[[], dict[str, Any]],
) -> CallResult:
    """Return what DSPy makes of what it found in its cache, which is no record of its own.

    Args:
        answer: What it found.
        opened: The answer that this was made of; None where its shape is not known.
        lm: The LM that asks.
        kwargs: The options of the call.
        sent: Returns what DSPy sends: the LM's options and the call's.
    """
    if opened is None or opened.shaped is None:
        return _by_dspy(answer, lm, sent())
    known = opened.shaped.shape.mould
    if not (isinstance(known, _OfLiteLLM) and _makes_texts(lm, kwargs)):
        return _by_dspy(answer, lm, sent())
    cost = plain_at(known.cost, opened.shaped.leaves)
    if known.agreed < _AGREED:
        result = _by_dspy(answer, lm, sent())
        known.agreed = known.agreed + 1 if result == _of_contents(answer, cost) else -_NEVER
        return result
    return _of_contents(answer, cost) or _by_dspy(answer, lm, sent())


def _by_dspy(answer: Any, lm: BaseLM, options: dict[str, Any]) -> CallResult:
    result = CallResult.legacy(lm, answer, kwargs=options)
    result.cache_hit, result.usage = True, {}
    return result


def _makes_texts(lm: BaseLM, kwargs: Mapping[str, Any]) -> bool:
    """Tell whether an LM's outputs rest on the answer alone, as far as the LM and the call decide it."""
    # DSPy's own way, or somebody else's.
    is_dspys = type(lm)._process_completion is BaseLM._process_completion and lm.model_type != "responses"  # noqa: SLF001
    return is_dspys and not (kwargs.get("logprobs") or lm.kwargs.get("logprobs"))


def _of_contents(answer: Any, cost: float | None) -> CallResult | None:
    """Return a result whose outputs are the contents of a response's choices; None where they have none."""
    try:
        contents = [choice.message.content for choice in answer.choices]
    except AttributeError:
        return None
    return CallResult(outputs=contents, cost=cost, raw=answer, response_model=answer.model, cache_hit=True)
