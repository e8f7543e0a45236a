"""Which output fields a DSPy prompt asks for, and how they are written down."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from xml.sax.saxutils import escape

import orjson

_CHAT = "Respond with the corresponding output fields, starting with the field "
_JSON = "Respond with a JSON object in the following order of fields: "
_XML = "Respond with the corresponding output fields wrapped in XML tags "
_JSON_BLOCK = "Outputs will be a JSON object with the following fields.\n\n"
_OBJECTIVE = "In adhering to this structure, your objective is:"
_HINT = re.compile(r"\{(\w+)\}\s+# note: the value you produce (must[^\n]*)")
_TOOL = re.compile(
    r"^\s*\(\d+\) (\w+)(?:, whose description is <desc>.*?</desc>)?\. It takes arguments (\{.*\})\.$", re.MULTILINE
)
_MODULES = re.compile(r"\[\[ ## module_names ## \]\]\s*(\[.*?\])", re.DOTALL)

# Fields in which an optimizer asks for a piece of a program, not for an answer of its task.
_META_FIELDS = frozenset(
    {
        "advice",
        "discussion",
        "feedback",
        "module_advice",
        "module_description",
        "natural_language_rules",
        "new_instruction",
        "observations",
        "program_description",
        "proposed_instruction",
        "proposed_prefix_for_output_field",
        "summary",
    }
)


@dataclass(frozen=True)
class Layout:
    """How an answer must look.

    Attributes:
        form: `chat` (`[[ ## field ## ]]`), `json`, `xml`, or `plain` for a prompt that is none of DSPy's.
        hints: Output field -> what the prompt says its value must be; "" for text.
        meta: Whether an optimizer asks, and no gold answer belongs here.
        modules: The module names in the prompt, which some fields must use as keys.
        tools: ReAct's tools with the schemas of their arguments.
        steps: Tools that ReAct's trajectory in the prompt has called already.
    """

    form: str
    hints: dict[str, str] = field(default_factory=dict)
    meta: bool = False
    modules: tuple[str, ...] = ()
    tools: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: int = 0

    def target(self, preferred: str | None) -> str | None:
        """The field that a given text goes into: `preferred` if it exists, else the last one."""
        if preferred in self.hints:
            return preferred
        return next(reversed(self.hints), None)

    def write(self, values: dict[str, Any]) -> str:
        """The values in the form that the prompt asks for."""
        if self.form == "json":
            return orjson.dumps(values, option=orjson.OPT_INDENT_2).decode()
        if self.form == "xml":
            return "\n\n".join(f"<{name}>\n{escape(_shown(value))}\n</{name}>" for name, value in values.items())
        parts = [f"[[ ## {name} ## ]]\n{_shown(value)}" for name, value in values.items()]
        return "\n\n".join([*parts, "[[ ## completed ## ]]"])


@lru_cache(maxsize=1024)
def read(system: str, prompt: str) -> Layout:
    """The layout that these two messages ask for."""
    for form, opening, pattern in (
        ("xml", _XML, r"`<(\w+)>`"),
        ("chat", _CHAT, r"`\[\[ ## (\w+) ## \]\]`"),
        ("json", _JSON, r"(?:^|then )`(\w+)`"),
    ):
        at = prompt.rfind(opening)
        if at >= 0:
            # A field typed Literal[...] repeats its values here, so only the text up to the marker counts.
            asked = prompt[at + len(opening) :].split("`[[ ## completed ## ]]`", maxsplit=1)[0]
            return _layout(form, re.findall(pattern, asked), system or prompt, prompt)
    return Layout("plain", meta="Provide the new instructions within ``` blocks" in prompt)


def _layout(form: str, names: list[str], system: str, prompt: str) -> Layout:
    structure = system.split(_OBJECTIVE, 1)[0]
    if form == "json" and _JSON_BLOCK in structure:
        block = structure.split(_JSON_BLOCK, 1)[1]
        structure = "\n".join(str(value) for value in orjson.loads(block[: block.rindex("}") + 1]).values())
    found = dict(_HINT.findall(structure))
    modules = _MODULES.search(prompt)
    tools = {}
    if "next_tool_name" in names:
        tools = {name: ast.literal_eval(arguments) for name, arguments in _TOOL.findall(system)}
    return Layout(
        form,
        {name: found.get(name, "") for name in names},
        meta=not _META_FIELDS.isdisjoint(names),
        modules=tuple(orjson.loads(modules[1])) if modules else (),
        tools=tools,
        steps=len(set(re.findall(r"\btool_name_(\d+)\b", prompt))),
    )


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return orjson.dumps(value).decode()
    return str(value)
