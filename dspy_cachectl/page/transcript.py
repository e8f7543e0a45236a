"""What a page says of one question, as texts one after the other: for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dspy_cachectl.page.content import Answer, Page


def transcript(page: Page, at: int = 0) -> Iterator[tuple[str, str]]:
    """Yield what was asked, what was expected, and of each answer what it scored, and what the LM was told and said.

    Args:
        page: The page.
        at: Which of its questions.

    Yields:
        A title and a text. What an LM was told word for word before is not said again.
    """
    question, told = page.questions[at], dict[str, str]()
    yield from _named(page, question.inputs, "{}")
    yield from _named(page, question.expected, "expected {}")
    for side, answers in zip(page.sides, question.answers, strict=True):
        for repeat, answer in enumerate(answers or (), 1):
            name = f"{side}, repeat {repeat}" if len(answers or ()) > 1 else side
            yield f"{name}: score {answer.score:g}", _outcome(page, answer)
            for number, call in enumerate(answer.calls, 1):
                which = f"{name}, call {number}" if len(answer.calls) > 1 else name
                for part in call.prompt:
                    text = page.texts[part[1]]
                    first = told.setdefault(text, which)
                    yield f"{which}, told as {part[0]}", text if first == which else f"(the same as {first})"
                yield from _named(page, call.answer, f"{which}, answered: {{}}")


def _named(page: Page, parts: Sequence[tuple[str, int]], title: str) -> Iterator[tuple[str, str]]:
    yield from ((title.format(name), page.texts[number]) for name, number in parts)


def _outcome(page: Page, answer: Answer) -> str:
    said = [f"{name}: {page.texts[number]}" for name, number in answer.prediction]
    said += [f"failed: {page.texts[answer.failed]}"] if answer.failed is not None else []
    said += [f"feedback: {page.texts[answer.feedback]}"] if answer.feedback is not None else []
    said += [f"{name}: {text}" for name, text in answer.facts if name == "drawn" or name.startswith("by ")]
    return "\n".join(said)
