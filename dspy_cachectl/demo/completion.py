"""A DSPy adapter for models that complete text and follow no instructions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import dspy
from dspy.utils.exceptions import AdapterParseError

from dspy_cachectl.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping


class CompletionAdapter(dspy.Adapter):  # type: ignore[misc]  # dspy ships no types
    r"""Write the whole prompt as labelled blocks and leave the last label open for the model to fill.

    ```
    Is the review positive or negative?

    Review: The soup was cold.
    Sentiment: negative

    Review: We will be back.
    Sentiment:
    ```

    The answer is what stands before the first line break, so give the LM `stop="\n"`. Signatures with exactly
    one output are supported.
    """

    def format(
        self, signature: type[dspy.Signature], demos: list[dict[str, Any]], inputs: dict[str, Any]
    ) -> list[dict[str, str]]:
        """Return one user message that holds the instructions, the demonstrations and the open question."""
        output, _ = _only_output(signature)
        complete = [demo for demo in demos if all(demo.get(name) is not None for name in signature.fields)]
        blocks = [signature.instructions]
        blocks += [f"{_question(signature, demo, output)} {demo[output]}" for demo in complete]
        blocks.append(_question(signature, inputs, output))
        return [{"role": "user", "content": "\n\n".join(blocks)}]

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """Return the first line as the output's value.

        Raises:
            AdapterParseError: The output lists its values, and the line is none of them.
        """
        output, field = _only_output(signature)
        line = completion.strip().partition("\n")[0].strip()
        choices = _choices(field)
        if not choices:
            return {output: line}
        word = line.strip(" .,!'\"").casefold()
        for choice in choices:
            if word == str(choice).casefold():
                return {output: choice}
        expected = ", ".join(repr(choice) for choice in choices)
        raise AdapterParseError(
            adapter_name=type(self).__name__,
            signature=signature,
            lm_response=completion,
            message=f"expected one of {expected}",
        )


def _only_output(signature: type[dspy.Signature]) -> tuple[str, Any]:
    outputs = list(signature.output_fields.items())
    if len(outputs) != 1:
        names = ", ".join(repr(name) for name, _ in outputs)
        raise ConfigurationError(f"CompletionAdapter fills one output, this signature has {names}; split the signature")
    name, field = outputs[0]
    return str(name), field


def _question(signature: type[dspy.Signature], values: Mapping[str, Any], output: str) -> str:
    lines = [f"{_label(name)}: {values[name]}" for name in signature.input_fields if name in values]
    return "\n".join([*lines, f"{_label(output)}:"])


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _choices(field: Any) -> tuple[Any, ...]:
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
