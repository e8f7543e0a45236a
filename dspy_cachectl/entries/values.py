"""Plain values to JSON and back, exactly: what goes in comes out, and nothing is unpickled.

JSON alone loses tuples, NaN, large integers, lone surrogates, bytes and arrays. Such values are tagged:
`{"$": "tuple", "v": [...]}`. Responses of LiteLLM are kept as their fields, under a name from a fixed table;
no module is ever imported because its name was stored.
"""

from __future__ import annotations

import base64
import importlib
import marshal
import math
import re
import sys
from typing import Any

import orjson
import pydantic

from dspy_cachectl.boundary.reading import MOST_VALUES, holds_too_many, parsed
from dspy_cachectl.boundary.shown import writable_number
from dspy_cachectl.errors import CorruptEntryError

TAG = "$"
_INT64 = range(-(2**63), 2**64)
_ARRAY_KINDS = "biufcmMSU"
"""NumPy's kinds of elements that are numbers, times or text of a fixed length."""
_ELEMENT = re.compile(rf"[<>|]([{_ARRAY_KINDS}])(\d{{1,9}})(\[\w+\])?")

MOST_OBJECTS = 50_000
"""How many objects a value may hold that has tags: each may become one of LiteLLM's, of some kilobytes."""

RESPONSE_CLASSES = {
    "ModelResponse": "litellm.types.utils",
    "TextCompletionResponse": "litellm.types.utils",
    "EmbeddingResponse": "litellm.types.utils",
    "ResponsesAPIResponse": "litellm.types.llms.openai",
}
"""The response classes that DSPy's LiteLLM engine puts into the cache."""


class UnstorableError(TypeError):
    """A value has no stored form. The caller counts it and does without the entry."""


def loaded_classes(module: str, *names: str) -> tuple[Any, ...]:
    """Return classes of a module: none that it lacks as yet, because another thread has only begun to import it."""
    loaded = sys.modules.get(module)
    return tuple(getattr(loaded, name) for name in names if hasattr(loaded, name))


def dumps(value: Any) -> tuple[bytes, bool]:
    """Encode a value.

    Args:
        value: JSON types, tuples, sets, bytes, numbers of any size, NumPy arrays and LiteLLM's responses.

    Returns:
        The JSON, and whether it holds tags (`loads` then has to walk it).

    Raises:
        UnstorableError: If the value holds anything else.
    """
    encoder = Encoder()
    try:
        data = _plainly(value)
        plain = value if data is not None else encoder.walk(value)
    except RecursionError as error:
        raise UnstorableError("the value is nested too deeply, or holds itself") from error
    try:
        data = orjson.dumps(plain) if data is None else data
    except TypeError as error:  # it is all JSON, so only its depth can be wrong
        raise UnstorableError(f"the value cannot be written as JSON: {error}") from error
    if holds_too_many(data):
        raise UnstorableError(f"the value holds more than {MOST_VALUES:,} values")
    if encoder.tagged and _has_too_many_objects(plain, data.count(b"{")):
        raise UnstorableError(f"the response holds more than {MOST_OBJECTS:,} objects")
    return data, encoder.tagged


def _plainly(value: Any) -> bytes | None:
    """Return the JSON of a value that JSON holds exactly; None where it has to be walked over."""
    try:
        marshal.dumps(value)  # takes Python's own types alone, and no class derived from one
        data = orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
        return None if may_hold_tags(data) or orjson.loads(data) != value else data
    except (TypeError, ValueError):
        return None


def may_hold_tags(data: bytes) -> bool:
    """Tell whether a text of JSON may hold tags."""
    # One character is found far faster than three, and few values have it.
    return b"$" in data and b'"$"' in data


def response_fields(value: Any) -> dict[str, Any] | None:
    """Return what stands for a response whose fields JSON has, and perhaps for another; None of any other value."""
    if (
        not isinstance(value, pydantic.BaseModel)
        or RESPONSE_CLASSES.get(type(value).__name__) != type(value).__module__
    ):
        return None
    return _as_response(value, value.model_dump(), _cost_of(value))


def is_root_only(data: bytes) -> bool:
    """Tell whether the root of what `dumps` made is a response, and all in it is plain: then nothing need be walked."""
    return data.startswith(b'{"$":"response"') and data.count(b'"$"') == 1


def loads(data: bytes, *, tagged: bool) -> Any:
    """Decode what `dumps` made.

    Raises:
        CorruptEntryError: If the data is not what `dumps` makes, or a package that it needs is not installed here.
    """
    return untagged(parsed(data), most=most_objects(data)) if tagged else parsed(data)


def most_objects(data: bytes) -> int:
    """Return how many objects a text of JSON holds at most; they are counted where that may be too many."""
    most = len(data) // len(b"{}")
    return most if most <= MOST_OBJECTS else data.count(b"{")


def untagged(value: Any, *, most: int) -> Any:
    """Return what a stored form stands for.

    Args:
        value: The value in its stored form.
        most: How many objects it has at most.

    Raises:
        CorruptEntryError: If it is no stored form, or a package that it needs is not installed here.
    """
    if _has_too_many_objects(value, most):
        raise CorruptEntryError(f"the entry's value cannot be decoded: it holds more than {MOST_OBJECTS:,} objects")
    try:
        return _untag(value)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, ImportError) as error:
        raise CorruptEntryError(f"the entry's value cannot be decoded: {error}") from error


def _has_too_many_objects(value: Any, most: int) -> bool:
    """Tell whether more objects of other packages would be made of a value than is reasonable.

    Args:
        value: The value in its stored form.
        most: How many objects it has at most.
    """
    if most <= MOST_OBJECTS:
        return False
    weight, waiting = 0.0, [(value, 1.0)]
    while waiting:
        item, each = waiting.pop()
        if isinstance(item, list):
            waiting.extend((one, each) for one in item)
        elif isinstance(item, dict):
            weight += each
            # There are twenty for each token, and they are small.
            waiting.extend((one, 0.25 if name == "logprobs" else each) for name, one in item.items())
    return weight > MOST_OBJECTS


def readable(value: Any) -> Any:
    """Return a value in its stored form as plain JSON for people, without what it is an object of.

    Unlike `loads` it imports nothing: a response is its fields, and of an array there are its type and shape.
    """
    if isinstance(value, list):
        return [readable(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag, held = value.get(TAG), value.get("v")
    if tag is None:
        return {key: readable(item) for key, item in value.items()}
    if tag in {"tuple", "set", "frozenset", "response"}:
        return readable(held)
    if tag == "map" and isinstance(held, list):
        return {str(readable(key)): readable(item) for key, item in held}
    if tag in {"array", "scalar"}:
        return f"<{tag} {value.get('dtype')} {value.get('shape')}>"
    found = _scalar(str(tag), str(held))
    if isinstance(found, str):
        # Half of a pair of surrogates can be neither printed nor written as JSON.
        return found.encode("utf-8", "backslashreplace").decode()
    return writable_number(found) if isinstance(found, int) else repr(found)


def check(value: Any) -> None:
    """Check that a value in its stored form is one that `loads` makes something of. Nothing is imported for it.

    Raises:
        CorruptEntryError: If it is not.
    """
    try:
        _untag(value, build=False)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorruptEntryError(f"the entry's value cannot be decoded: {error}") from error


class Encoder:
    """One walk over a value. Who knows of more kinds of values than these overrides `other`.

    Attributes:
        tagged: Whether what was written holds tags.
    """

    def __init__(self) -> None:
        self.tagged = False

    def walk(self, value: Any) -> Any:
        """Return the stored form of a value."""
        # Exact types first: they are nearly all there is.
        kind = type(value)
        if kind is str:
            return value if value.isascii() else self._text(value)
        if value is None or kind is bool:
            return value
        if kind is int:
            return value if value in _INT64 else self.tag("int", hex(value))  # decimal has a limit in Python
        if kind is float:
            return value if math.isfinite(value) else self.tag("float", repr(value))
        if kind is list:
            return [self.walk(item) for item in value]
        if isinstance(value, dict):
            return self._mapping(value)
        return self.other(value)

    def tag(self, name: str, value: Any, **more: Any) -> dict[str, Any]:
        """Return a value under the name of what it is."""
        self.tagged = True
        return {TAG: name, "v": value, **more}

    def _text(self, value: str) -> Any:
        written = dumped_text(value)
        self.tagged = self.tagged or written is not value
        return written

    def _mapping(self, value: dict[Any, Any]) -> Any:
        if TAG not in value and all(type(key) is str and key.isascii() for key in value):
            return {key: self.walk(item) for key, item in value.items()}
        return self.tag("map", [[self.walk(key), self.walk(item)] for key, item in value.items()])

    def other(self, value: Any) -> Any:
        """Return the stored form of what is neither JSON nor a mapping. Raises `UnstorableError` if it has none."""
        if isinstance(value, (tuple, set, frozenset)) and type(value) in {tuple, set, frozenset}:
            return self.tag(type(value).__name__, [self.walk(item) for item in value])
        if type(value) in {bytes, bytearray}:
            return self.tag(type(value).__name__, _base64(value))
        if isinstance(value, pydantic.BaseModel):
            return self._response(value)
        # Subclasses of arrays carry more than their numbers: a mask, names of fields.
        if type(value) in loaded_classes("numpy", "ndarray") or isinstance(value, loaded_classes("numpy", "generic")):
            return self._array(value)
        raise UnstorableError(f"{type(value).__module__}.{type(value).__qualname__} has no stored form")

    def _array(self, value: Any) -> Any:
        # Of the other kinds of elements the bytes are pointers, or `dtype.str` leaves out what they mean.
        if value.dtype.kind not in _ARRAY_KINDS:
            raise UnstorableError(f"an array of {value.dtype} has no stored form")
        name = "scalar" if isinstance(value, sys.modules["numpy"].generic) else "array"
        if isinstance(value, (str, bytes)) and value[-1:] in {"\0", b"\0"}:
            raise UnstorableError("NumPy drops the zeros at the end of a text")
        return self.tag(name, _base64(value.tobytes()), dtype=value.dtype.str, shape=list(value.shape))

    def _response(self, value: pydantic.BaseModel) -> Any:
        kind = type(value)
        if RESPONSE_CLASSES.get(kind.__name__) != kind.__module__:
            raise UnstorableError(f"{kind.__module__}.{kind.__qualname__} has no stored form")
        self.tagged, fields = True, value.model_dump()
        plain = fields if _plainly(fields) is not None else self.walk(fields)
        return _as_response(value, plain, self.walk(_cost_of(value)))


def _as_response(value: pydantic.BaseModel, fields: Any, cost: Any) -> dict[str, Any]:
    return {TAG: "response", "v": fields, "of": type(value).__name__, "cost": cost}


def _cost_of(value: pydantic.BaseModel) -> Any:
    # Of the hidden parameters only the cost is kept: the rest holds headers and addresses.
    return (getattr(value, "_hidden_params", None) or {}).get("response_cost")


def _untag(value: Any, *, build: bool = True) -> Any:
    """Return what a stored form stands for; what is made by other packages only if it is to be built."""
    if isinstance(value, list):
        return [_untag(item, build=build) for item in value]
    if not isinstance(value, dict):
        return value
    tag = value.get(TAG)
    if tag is None:
        return {key: _untag(item, build=build) for key, item in value.items()}
    if tag == "map":
        return {_untag(key, build=build): _untag(item, build=build) for key, item in value["v"]}
    if tag in {"tuple", "set", "frozenset"}:
        make = {"tuple": tuple, "set": set, "frozenset": frozenset}[tag]
        return make(_untag(item, build=build) for item in value["v"])
    if tag == "response":
        return _response(value["of"], *(_untag(value[name], build=build) for name in ("v", "cost")), build=build)
    if tag in {"array", "scalar"}:
        return _array(value, build=build)
    return _scalar(tag, value["v"])


def _scalar(tag: str, value: str) -> Any:
    if tag == "int":
        return int(value, 16)
    if tag == "float":
        return float(value)
    if tag == "str":
        return loaded_text(value)
    if tag in {"bytes", "bytearray"}:
        return {"bytes": bytes, "bytearray": bytearray}[tag](base64.b64decode(value))
    raise CorruptEntryError(f"the entry holds a value of the unknown kind {tag!r}")


def _array(value: dict[str, Any], *, build: bool) -> Any:
    kind = _ELEMENT.fullmatch(value["dtype"])
    if kind is None:
        raise CorruptEntryError(f"the entry's array is of {value['dtype']!r}, which is never stored")
    shape, data = value["shape"], base64.b64decode(value["v"])
    size = int(kind[2]) * (4 if kind[1] == "U" else 1)
    # NumPy ends the process for some of what is refused here, and makes gigabytes of nothing for others.
    whole = min(shape, default=0) >= 0 and size * math.prod(shape) == len(data)
    if not (whole if size else shape == []):
        raise CorruptEntryError(f"the entry's array cannot be decoded: {len(data)} bytes, {kind[0]}, shape {shape}")
    if not build:
        return None
    import numpy as np

    array = np.ndarray(shape, np.dtype(kind[0]), data).copy()
    return array[()] if value[TAG] == "scalar" else array


def _response(name: str, fields: dict[str, Any], cost: Any, *, build: bool) -> Any:
    module = RESPONSE_CLASSES.get(name)
    if module is None:
        raise CorruptEntryError(f"the entry holds a response of the unknown kind {name!r}")
    if not build:
        return None
    response = getattr(importlib.import_module(module), name)(**fields)
    response._hidden_params = {"response_cost": cost}  # noqa: SLF001 - where LiteLLM and DSPy keep the cost
    return response


def dumped_text(value: str) -> Any:
    """Return what stands for a text in JSON: the text itself, or tagged where it holds half of a character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return {TAG: "str", "v": _base64(value.encode("utf-8", "surrogatepass"))}
    return value


def loaded_text(encoded: str) -> str:
    """Return the text that is tagged in `dumped_text`. Raises ValueError where it is none."""
    return base64.b64decode(encoded).decode("utf-8", "surrogatepass")


def _base64(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode("ascii")
