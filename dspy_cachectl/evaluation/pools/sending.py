"""What is sent to workers: by value, also what a notebook defines, and without a credential.

Workers take keys from their own environment. A credential that the environment holds here goes as the name of its
variable; one that it does not hold is refused before anything is sent.
"""

from __future__ import annotations

import io
import ipaddress
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import cloudpickle
import dspy
from dspy.dsp.utils.settings import DEFAULT_CONFIG

from dspy_cachectl.boundary.held import HELD, secrets_in
from dspy_cachectl.boundary.secrets import hold_secret
from dspy_cachectl.calls.saving import CREDENTIALS, as_variables, held_in_environment, variable_of
from dspy_cachectl.errors import ConfigurationError

_OPTIONS_IN: tuple[tuple[type, str], ...] = ((dspy.BaseLM, "kwargs"), (dspy.Embedder, "default_kwargs"))
"""Where what asks a provider has its options."""
_OF_A_PLACE = frozenset(
    {"callbacks", "trace", "caller_predict", "caller_modules", "send_stream", "stream_listeners", "usage_tracker"}
    | {"branch_idx", "cachectl", "cachectl_evaluation"}
)
"""DSPy's settings that say where code runs, and not how."""


def settings_to_send() -> dict[str, Any]:
    """Return what DSPy is set to here, as far as it differs from what it is by itself."""
    found = dspy.settings.copy()
    return {
        name: value
        for name, value in found.items()
        if name not in _OF_A_PLACE and (name not in DEFAULT_CONFIG or value is not DEFAULT_CONFIG[name])
    }


def packed(value: Any) -> bytes:
    """Return a value as bytes, for another process.

    Raises:
        ConfigurationError: If it cannot be, or a credential would go with it.
    """
    file = io.BytesIO()
    pickler = _Pickler(file)
    try:
        pickler.dump(value)
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"the program, its metric or its data cannot be sent to another process: {type(error).__name__}: {error}. "
            "Make what holds locks, connections and open files where it is used"
        ) from error
    sent = file.getvalue()
    if HELD.is_in(sent.decode("utf-8", "ignore"), besides=pickler.harmless):
        raise ConfigurationError(
            "the program, its metric or its data hold a secret that this process knows, such as the value of an "
            "environment variable, and are not sent to other processes. Read it where it is used, and not before"
        )
    return sent


unpacked: Callable[[bytes], Any] = cloudpickle.loads


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Puts the names of variables in the place of credentials, and refuses those that are in none.

    Attributes:
        harmless: What stands where a key does, and is none.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.harmless: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        for kind, name in _OPTIONS_IN:
            if isinstance(obj, kind):
                return self._without_credentials(obj, name)
        return super().reducer_override(obj)

    def _without_credentials(self, asks: Any, name: str) -> Any:
        made, arguments, state, *rest = asks.__reduce_ex__(4)
        if not isinstance(state, dict):
            return (made, arguments, state, *rest)
        options, model = state.get(name) or {}, str(asks.model)
        held = held_in_environment(model, options)
        sent = {**state, name: as_variables(model, options)}
        if "history" in sent:
            sent["history"] = []  # what was asked here is of no use there
        own = {option: value for option, value in {**sent, **options}.items() if option not in {*held, name, "model"}}
        if _is_on_loopback(options):  # but not what others are asked with
            near = {option for option, value in own.items() if option in options and not isinstance(value, list)}
            self.harmless.update(secrets_in({option: own.pop(option) for option in near}))
        for option, value in own.items():
            if hold_secret({option: value}):
                raise ConfigurationError(_refusal(model, options, option))
        return (made, arguments, sent, *rest)


def _refusal(model: str, options: Mapping[str, Any], option: str) -> str:
    remedy = f"set {variable_of(model, options, option)} here and where the workers run"
    if option not in CREDENTIALS:
        remedy = f"leave it out and {remedy}, or make the LM in the program, where it is used"
    return (
        f"{model!r} has a credential in its {option} that is in no environment variable, and credentials are not sent "
        f"to other processes: {remedy}"
    )


def _is_on_loopback(options: Mapping[str, Any]) -> bool:
    """Tell whether options name a server of this machine, which wants no key that is worth something."""
    address = options.get("api_base") or options.get("base_url")
    try:
        host = urlsplit(str(address or "")).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
