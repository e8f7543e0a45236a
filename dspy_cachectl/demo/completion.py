"""A DSPy adapter for models that complete text and follow no instructions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import dspy
from dspy.utils.exceptions import AdapterParseError


class CompletionAdapter(dspy.Adapter):  # type: ignore[misc]  # dspy ships no types
    r"""Write the whole prompt as labelled blocks and leave the last label open for the model to fill.

    ```
    Is the review positive or negative?

    Review: The soup was cold.
    Sentiment: negative

    Review: We will be back.
    Sentiment:
    ```

    The answer is what stands before the first line break, so give the LM `stop="\n"`. Signatures have one output: a
    text, or one of listed values.
    """

    def format(
        self, signature: type[dspy.Signature], demos: list[dict[str, Any]], inputs: dict[str, Any]
    ) -> list[dict[str, str]]:
        """Return one user message that holds the instructions, the demonstrations and the open question."""
        (output,) = signature.output_fields
        complete = [demo for demo in demos if all(demo.get(name) is not None for name in signature.fields)]
        blocks = [signature.instructions]
        blocks += [f"{_question(signature, demo, output)} {demo[output]}" for demo in complete]
        blocks.append(_question(signature, inputs, output))
        return [{"role": "user", "content": "\n\n".join(blocks)}]

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """Return the first line as the output's value.

        Raises:
            AdapterParseError: The line is none of its values, or there is none.
        """
        ((output, field),) = signature.output_fields.items()
        line = completion.strip().partition("\n")[0].strip()
        choices = get_args(field.annotation)
        if line and field.annotation is str:
            return {output: line}
        word = line.strip(" .,!'\"").casefold()
        for choice in choices:
            if word == str(choice).casefold():
                return {output: choice}
        raise AdapterParseError(
            adapter_name=type(self).__name__,
            signature=signature,
            lm_response=completion,
            message=f"expected one of {', '.join(map(repr, choices))}" if choices else "expected a line of text",
        )


def _question(signature: type[dspy.Signature], values: Mapping[str, Any], output: str) -> str:
    lines = [f"{_label(name)}: {values[name]}" for name in signature.input_fields if name in values]
    return "\n".join([*lines, f"{_label(output)}:"])


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()
