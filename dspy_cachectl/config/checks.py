"""What may be set, and what each value has to be. Who says what is wrong says what to write, too."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dspy_cachectl.boundary.encryption import Encryption, keys_of
from dspy_cachectl.boundary.meant import question
from dspy_cachectl.boundary.secrets import scrub
from dspy_cachectl.boundary.shown import harmless
from dspy_cachectl.budget import Budget
from dspy_cachectl.config.location import MEMORY, Stores, normal_location, shortened
from dspy_cachectl.config.objects import is_objects, objects_of
from dspy_cachectl.config.shared import is_shared, without_secrets
from dspy_cachectl.errors import ConfigurationError
from dspy_cachectl.policy import PRESETS, Policy

Where = tuple[str, ...]
"""The name of a setting: `("store",)`, or `("phases", "eval", "temperature")` for one of a phase."""

ON, OFF = "on", "off"
"""Whether predictions are kept, where no folder is named."""
LEAST_DISK = 100_000
"""In less than this a store has room for its own tables, and for no answer."""
_MOST_BYTES = 2**60
_SEVERAL = '["~/.cache/mine", "redis://host"]'
_WHOLE = re.compile(r"[0-9](?:_?[0-9]){0,30}")
_NUMBER = re.compile(r"[0-9](?:_?[0-9]){0,30}(?:\.[0-9]{0,30})?(?:[eE][+-]?[0-9]{1,3})?")
_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


@dataclass(frozen=True)
class Origin:
    """Where something is written.

    Attributes:
        name: A file's path, the name of an environment variable, or what was called.
        kind: Which of these it is.
        base: What a relative path is relative to. None: the working directory.
    """

    name: str
    kind: Literal["file", "variable", "call"]
    base: Path | None = None

    def __str__(self) -> str:
        name = self.name if self.kind == "file" else shortened(self.name)
        return f"in {'the environment variable ' if self.kind == 'variable' else ''}{harmless(name)}"


@dataclass(frozen=True)
class Written:
    """A value as somebody wrote it, and where.

    Attributes:
        value: The value.
        origin: Where it stands.
    """

    value: Any
    origin: Origin


def shown(value: Any) -> str:
    """Return a value for a message: on one line, not too long, and without what is secret in it."""
    try:
        return shortened(without_secrets(scrub(repr(value))))
    except Exception:  # noqa: BLE001 - whatever somebody's own class raises, and Python of a number of 5000 digits
        return f"this {type(value).__name__}"


def named(where: Where) -> str:
    """Return a setting's name for a message, as `shown` does."""
    return shown(".".join(where))


def _text(written: Written) -> str:
    if not isinstance(written.value, str):
        raise ConfigurationError('write a text between quotes, such as "this"')
    return written.value.strip()


def _store(written: Written) -> Stores:
    value: Any = written.value
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ConfigurationError(f"several are written as a list, such as {_SEVERAL}") from None
    if not isinstance(value, (list, tuple)):
        return _location(written, shared=True)
    found = tuple(_location(Written(one, written.origin), shared=True) for one in value)
    behind = found[found[:1] == (MEMORY,) :]
    if not found or MEMORY in behind or len(set(behind)) < len(behind):
        raise ConfigurationError(f"write each once and the nearest first, such as {_SEVERAL}")
    if any(not is_shared(one) for one in behind[1:]):
        raise ConfigurationError("of several one may be a folder, and stands before those that others share")
    return behind if len(behind) > 1 else (*behind, MEMORY)[0]


def _location(written: Written, *, looks: bool = True, shared: bool = False) -> str:
    value = written.value
    if not isinstance(value, (str, Path)):
        other = ', or "memory://"' if looks else ""
        raise ConfigurationError(f"write a folder's path between quotes{other}")
    return normal_location(
        str(value).strip() if isinstance(value, str) else str(value),
        base=written.origin.base,
        looks=looks,
        shared=shared,
    )


def _folder(written: Written) -> str:
    # Not looked at: where nothing can be kept for later, results are delivered all the same.
    location = _location(written, looks=False)
    if location == MEMORY:
        raise ConfigurationError("it has to survive a process; write a folder's path")
    return location


def _whole(written: Written) -> int:
    value: Any = written.value
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        value = int(value.strip())
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"write a whole number of bytes, such as {_suggested(value)}")
    if value < 0:
        raise ConfigurationError("write a number of bytes that is not negative")
    if value > _MOST_BYTES:
        raise ConfigurationError(f"no disk and no memory is that large; write at most {_MOST_BYTES}")
    return value


def _suggested(value: Any) -> int:
    """Return what was probably meant by something that is no whole number: `1e9`, `2000.0`."""
    try:
        number = 0.0 if isinstance(value, bool) else float(value)
        return int(number) if LEAST_DISK <= number <= _MOST_BYTES else 10**9
    except (TypeError, ValueError, OverflowError):
        return 10**9


def _disk_bytes(written: Written) -> int:
    value = _whole(written)
    if value < LEAST_DISK:
        raise ConfigurationError(f"nothing fits into so little; write at least {LEAST_DISK} (bytes)")
    return value


def _number(written: Written, *, meant: str = "number that is not negative, such as 0.7") -> float | None:
    value: Any = written.value
    if value is None:
        return None
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value.strip())
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= sys.float_info.max:
        raise ConfigurationError(f"write a {meant}")
    return value


_seconds = partial(_number, meant="number of seconds that is not negative, such as 86400")


def switched(value: Any) -> bool | None:
    """Return what a switch is set to, by a bool or a word such as "on" or "no"; None where it is neither."""
    if isinstance(value, str):
        return _SWITCH.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _switch(written: Written) -> bool:
    value = switched(written.value)
    if value is None:
        raise ConfigurationError("write true or false")
    return value


def _predictions(written: Written) -> str:
    value = switched(written.value)
    if value is not None:
        return ON if value else OFF
    if not isinstance(written.value, (str, Path)):
        raise ConfigurationError('write "on", "off", or a folder\'s path between quotes')
    if is_objects(str(written.value)):
        return objects_of(str(written.value))
    location = _location(written)
    if location == MEMORY:
        raise ConfigurationError('they are kept in files; write "on", "off", or a folder\'s path')
    return location


def _preset(written: Written) -> str:
    value = _text(written)
    if value.upper() not in PRESETS:
        guess = question(value, PRESETS)
        raise ConfigurationError(f"unknown policy; {guess}{' ' if guess else ''}write one of {', '.join(PRESETS)}")
    return Policy.named(value).name


def _preset_or_none(written: Written) -> str | None:
    return None if written.value is None else _preset(written)


def _drift(written: Written) -> str | None:
    if written.value not in (None, "note", "raise"):
        raise ConfigurationError('write "note" or "raise"')
    return None if written.value is None else str(written.value)


def pairs_of(text: str) -> tuple[tuple[str, str], ...]:
    """Return the pairs of a text such as `"one=other, third=fourth"`."""
    return tuple((one.partition("=")[0].strip(), one.partition("=")[2].strip()) for one in text.split(","))


def _names_alike(written: Written) -> str:
    text = _text(written)
    if not all(map(all, pairs_of(text))):
        raise ConfigurationError('write what is asked and what answers, such as "openai/local=llama-3*"')
    return text


def _budget(written: Written) -> str:
    text = _text(written)
    Budget.read(text)
    return text


def _encryption_key(written: Written) -> Encryption:
    value: Any = written.value
    if isinstance(value, Encryption):
        return value
    if written.origin.kind == "file":
        raise ConfigurationError("a key does not stand in a file: set the variable DSPY_CACHECTL_ENCRYPTION_KEY")
    if written.origin.kind == "call" and not callable(value):
        raise ConfigurationError("in code, give a function that returns it")
    return keys_of(value)


Check = Callable[[Written], Any]

TOP: dict[str, Check] = {
    "store": _store,
    "memory_bytes": _whole,
    "disk_bytes": _disk_bytes,
    "policy": _preset,
    "predictions": _predictions,
    "predictions_max_age": _seconds,
    "predictions_compress": _switch,
    "force_recompute": _switch,
    "guard": _switch,
    "state": _folder,
    "mlflow": _switch,
    "answers_as": _names_alike,
    "budget": _budget,
    "encryption_key": _encryption_key,
}
"""What is no table, each with what makes a value of it."""
OF_PHASE: dict[str, Check] = {
    "policy": _preset_or_none,
    "temperature": _number,
    "max_age": _seconds,
    "on_drift": _drift,
    "budget": _budget,
}
TABLES_OF_PHASE: dict[str, Check] = {"scope": _text, "roles": _preset}


def names_at(where: Where) -> list[str] | None:
    """Return what may be set in the table of this name; None where names are the user's own.

    Raises:
        KeyError: If it is no table.
    """
    if not where:
        return [*TOP, "phases"]
    if where == ("phases",):
        return None
    if where[0] == "phases" and len(where) == 2:
        return [*OF_PHASE, *TABLES_OF_PHASE]
    if where[0] == "phases" and len(where) == 3 and where[2] in TABLES_OF_PHASE:
        return None
    raise KeyError(where)


def is_blank(where: Where, value: Any) -> bool:
    """Tell whether a value says nothing: an empty text, or None. What a scope holds is the user's own."""
    if value is None:
        return len(where) == 1  # for a phase it is a value: its temperature is left as it is
    return isinstance(value, str) and not value.strip() and where[2:3] != ("scope",)


def checked(where: Where, written: Written) -> Any:
    """Return the value that is meant.

    Raises:
        ConfigurationError: If it cannot be used; the message says which setting, where it stands, and what to write.
    """
    check = TOP[where[0]] if len(where) == 1 else (OF_PHASE | TABLES_OF_PHASE)[where[2]]
    try:
        return check(written)
    except ConfigurationError as error:
        value = "" if where[2:3] == ("scope",) or where == ("encryption_key",) else f" cannot be {shown(written.value)}"
        raise ConfigurationError(f"setting {named(where)} {written.origin}{value}: {error}") from error
