"""A program on DSPy's own cache, or on ours: run as a script."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import dspy


def lengths(texts: list[str]) -> list[list[float]]:
    return [[float(len(text))] for text in texts]


TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def program(url: str) -> list[Any]:
    """Calls of every kind that DSPy caches."""
    connection = {"api_base": url, "api_key": "sk-test-secret"}

    def lm(model: str = "openai/test-model", **options: Any) -> dspy.LM:
        return dspy.LM(model, **connection, **options)

    request = dspy.lm15.Request(model="openai/test-model", messages=(dspy.lm15.Message.user("typed"),))
    found: list[Any] = []
    for engine in ("auto", "litellm"):
        dspy.configure(lm=lm(engine=engine))
        asked = dspy.settings.lm
        found += [
            asked(f"chat {engine}"),
            asked(f"three {engine}", n=3, temperature=1.0),
            asked(f"rollout {engine}", rollout_id=5, temperature=1.0),
            lm(engine=engine, model_type="responses")(f"responses {engine}"),
            lm("openai/gpt-4o-mini", engine=engine)(f"tools {engine}", tools=[TOOL]),
            dspy.ChainOfThought("question -> answer")(question=f"Why {engine}?").toDict(),
            asyncio.run(asked.acall(f"async {engine}")),
        ]
    embedder = dspy.Embedder("openai/test-embedding", **connection)
    found += [
        lm("text-completion-openai/test-model", model_type="text")("text"),
        str(lm()(request)),
        embedder(["a", "b"]).tolist(),
        asyncio.run(embedder.acall(["c"])).tolist(),
        dspy.Embedder(lengths)(["abc"]).tolist(),
    ]
    return json.loads(json.dumps(found, default=str))


def main(url: str, managed: str) -> None:
    """Print the results, and what was counted where the cache is ours."""
    if managed == "yes":
        import dspy_cachectl as cachectl

        cachectl.install()
        print(json.dumps({"found": program(url), "reused": cachectl.stats().reused}))
    else:
        print(json.dumps({"found": program(url)}))
