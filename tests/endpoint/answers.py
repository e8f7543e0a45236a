"""The seeded distribution: which answer is the k-th draw of a prompt."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from typing import Any

import orjson

from . import layout as layouts, values
from .config import Config
from .question import Question

GARBAGE = "@@ ~~ %% no field, no object, nothing that parses %% ~~ @@"


@dataclass(slots=True)
class Answer:
    """One choice of a completion: a text, or a call of a tool with its arguments as JSON; and what is said beside."""

    text: str
    finish_reason: str = "stop"
    tool: str | None = None
    arguments: str = ""
    beside: dict[str, Any] = field(default_factory=dict)

    def words(self) -> int:
        """Words of the answer: the completion tokens of this endpoint."""
        return len((self.text or self.arguments).split())


def draw(question: Question, index: int, config: Config) -> Answer:
    """The answer number `index` to a question; the same for ever for the same seed."""
    if question.temperature == 0 and config.deterministic_at_zero:
        index = 0
    seed = hashlib.blake2b(b"%d|%b|%d" % (config.seed, question.key(), index), digest_size=8).digest()
    rng = random.Random(int.from_bytes(seed, "big"))
    token = f"draw-{seed.hex()[:8]}"
    if _calls_tool(question, config):
        return _tool_call(question, rng, token)
    layout = layouts.read(question.system, question.prompt)
    given = _given(question, index, config)
    if given is not None and ("[[ ##" in given or given.lstrip().startswith("{")):
        return Answer(given)
    if given is None and not layout.meta:
        given, wrong = _graded(question, rng, config)
    else:
        wrong = None
    if layout.hints:
        drawn = _fields(question, layout, rng, token, config)
        _put(drawn, layout, given, wrong, config, rng, token)
        if question.schema is not None:
            # Under a schema the fields without a note (a tool list, say) still need their type.
            drawn = {**_json(question, rng, token), **drawn}
        return Answer(layout.write(drawn))
    if question.schema is not None or question.json_mode:
        return Answer(orjson.dumps(_json(question, rng, token, given)).decode())
    text = values.text(rng, token) if given is None else given
    return Answer(f"```\n{text}\n```" if layout.meta else text, beside=config.beside)


def _given(question: Question, index: int, config: Config) -> str | None:
    for part, texts in config.answers.items():
        if part in question.searched and texts:
            return texts[index % len(texts)]
    return None


def _graded(question: Question, rng: random.Random, config: Config) -> tuple[str | None, str | None]:
    """(right answer, None) or (None, answer to avoid), by a throw of the accuracy; two Nones if unknown."""
    if config.accuracy is None:
        return None, None
    known = [part for part in config.gold if part in question.prompt]
    if not known:
        return None, None
    right = str(config.gold[max(known, key=len)])
    return (right, None) if rng.random() < config.accuracy else (None, right)


def _fields(
    question: Question, layout: layouts.Layout, rng: random.Random, token: str, config: Config
) -> dict[str, Any]:
    drawn = {name: values.for_hint(hint, rng, token, layout.modules) for name, hint in layout.hints.items()}
    if layout.tools:
        others = [name for name in layout.tools if name != "finish"]
        done = layout.steps >= config.react_steps or not others
        name = "finish" if done else rng.choice(others)
        drawn["next_tool_name"] = name
        schemas = layout.tools.get(name, {})
        drawn["next_tool_args"] = {key: values.for_schema(inner, rng, token) for key, inner in schemas.items()}
    return drawn


def _put(
    drawn: dict[str, Any],
    layout: layouts.Layout,
    given: str | None,
    wrong: str | None,
    config: Config,
    rng: random.Random,
    token: str,
) -> None:
    target = layout.target(config.gold_field)
    if target is None or layout.tools:
        return
    hint = layout.hints[target]
    if given is not None:
        drawn[target] = values.from_text(given, hint)
    elif wrong is not None:
        for _ in range(50):
            if str(drawn[target]).lower() != wrong.lower():
                return
            drawn[target] = values.for_hint(hint, rng, token, layout.modules)


def _json(question: Question, rng: random.Random, token: str, given: str | None = None) -> dict[str, Any]:
    if question.schema is None:
        return {"answer": values.text(rng, token) if given is None else given}
    value = values.for_schema(question.schema, rng, token)
    if given is not None and isinstance(value, dict) and value:
        last = next(reversed(value))
        value[last] = given if isinstance(value[last], str) else values.from_text(given, "any")
    return value


def _calls_tool(question: Question, config: Config) -> bool:
    if not question.tools or question.tool_choice == "none":
        return False
    if question.tool_choice == "required" or isinstance(question.tool_choice, dict):
        return True
    return config.call_tools and question.last_role != "tool"


def _tool_call(question: Question, rng: random.Random, token: str) -> Answer:
    tools = {tool["name"]: tool.get("parameters") or {} for tool in question.tools}
    name = rng.choice(list(tools))
    if isinstance(question.tool_choice, dict):
        name = question.tool_choice.get("name", name)
    arguments = values.for_schema({"type": "object", **tools[name]}, rng, token)
    return Answer("", "tool_calls", name, orjson.dumps(arguments).decode())
