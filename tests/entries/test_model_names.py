"""Which names are of one model."""

from __future__ import annotations

import pytest

from dspy_cachectl.entries.model_names import is_asked_model

SAME = [
    ("openai/gpt-4o", "gpt-4o"),
    ("gpt-4o", "openai/gpt-4o"),
    ("openai/gpt-4o", "gpt-4o-2024-08-06"),
    ("openai/gpt-4o", "gpt-4o:latest"),
    ("openai/gpt-4", "gpt-4-0613"),
    ("openai/gpt-3.5-turbo", "gpt-3.5-turbo-0125"),
    ("openai/o1", "o1-2024-12-17"),
    ("fireworks_ai/accounts/fireworks/models/x-8b", "accounts/fireworks/models/x-8b"),
    ("fireworks_ai/x-8b", "accounts/fireworks/models/x-8b"),
    ("bedrock/us.anthropic.claude-3-5-sonnet-20241022-v2:0", "claude-3-5-sonnet-20241022"),
    ("bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
    ("anthropic/claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
    ("vertex_ai/claude-3-5-sonnet", "claude-3-5-sonnet@20240620"),
    ("openrouter/anthropic/claude-3.5-sonnet", "anthropic/claude-3.5-sonnet"),
    ("openrouter/x/y:free", "x/y"),
    ("gemini/gemini-1.5-flash", "models/gemini-1.5-flash-002"),
    ("gemini/gemini-2.5-flash", "gemini-2.5-flash-preview-05-20"),
    ("mistral/mistral-large-latest", "mistral-large-2411"),
    ("ollama_chat/llama3.2", "llama3.2:latest"),
    ("ollama_chat/llama3:8b", "llama3:8b-instruct-q4_K_M"),
    ("anthropic/claude-sonnet-4-0", "claude-sonnet-4-20250514"),
    ("cohere_chat/command-r", "command-r-08-2024"),
    ("openai/text-embedding-ada-002", "text-embedding-ada-002-v2"),
    *(
        ("openai/Qwen2.5-7B", f"Qwen2.5-7B-{bits}")
        for bits in (
            "GPTQ-Int4",
            "AWQ",
            "UD-Q4_K_XL.gguf",
            "IQ4_XS.gguf",
            "f16.gguf",
            "FP8-dynamic",
            "w4a16",
            "bnb-4bit",
        )
    ),
    ("openai/ft:gpt-4o-mini-2024-07-18:org::id", "ft:gpt-4o-mini-2024-07-18:org::id"),
    ("openai/ft:gpt-4o-mini:org::id", "ft:gpt-4o-mini-2024-07-18:org::id"),
    ("hosted_vllm/meta-llama/Llama-3-8B", "meta-llama/llama-3-8b"),
    ("openai/Llama-3-8B-Instruct", "/models/Llama-3-8B-Instruct.Q4_K_M.gguf"),
    ("azure/my-deployment", "gpt-4o-2024-08-06"),
    ("openai/llama-3", "local"),
]

OTHERS = [
    ("openai/big", "small"),
    ("openai/gpt-4o", "gpt-4o-mini"),
    ("openai/gpt-4o", "gpt-4o-mini-2024-07-18"),
    ("openai/gpt-4o-2024-05-13", "gpt-4o-2024-08-06"),
    ("openai/gpt-4", "gpt-4-32k"),
    ("openai/gpt-4", "gpt-4-turbo"),
    ("openai/gpt-4", "gpt-4.1"),
    ("openai/gpt-4.1", "gpt-4-1106-preview"),
    ("openai/gpt-5", "gpt-5-mini"),
    ("openai/llama-3-8b", "llama-3-70b"),
    ("ollama/llama3.2:1b", "llama3.2:3b"),
    ("hosted_vllm/acme/llama-3-8b", "meta-llama/llama-3-8b"),
    ("openai/gpt-4o", "ft:gpt-4o:org::id"),
    ("openai/ft:gpt-4o:org::a", "gpt-4o"),
    ("openai/ft:gpt-4o:org::a", "ft:gpt-4o:org::b"),
    ("anthropic/claude-3-opus", "claude-3-5-opus"),
    ("openai/local", "qwen2.5-7b"),
    ("ollama_chat/llama3", "llama3:70b"),
    ("ollama_chat/llama3:latest", "llama3:70b"),
    ("ollama_chat/deepseek-r1:7b", "deepseek-r1:latest"),
    ("openai/deepseek-coder", "deepseek-coder-v2"),
    ("openai/deepseek", "deepseek-v3"),
    ("openai/ctx", "ctx-8192"),
    ("openai/checkpoint", "checkpoint-2000"),
    ("openai/ctx-1024", "ctx"),
    ("openai/my.model", "other.model"),
    ("openai/org.model", "xorg.model"),
    ("openai/acme.base", "beta.base"),
]


@pytest.mark.parametrize(("asked", "answered"), SAME)
def test_what_only_qualifies_a_name_is_the_same_model(asked: str, answered: str) -> None:
    """A date, a tag, a prefix, a deployment of that provider: the model that was asked."""
    assert is_asked_model(asked, (answered,))


@pytest.mark.parametrize(("asked", "answered"), OTHERS)
def test_another_model_is_another(asked: str, answered: str) -> None:
    """Another size, release, organization, date or tag than was asked for is another model."""
    assert not is_asked_model(asked, (answered,))


def test_several_answers_are_of_the_asked_model_where_each_is() -> None:
    """An answer of several responses counts as the asked model's only where all of them are."""
    assert is_asked_model("openai/gpt-4o", ())
    assert is_asked_model("openai/gpt-4o", ("gpt-4o", "gpt-4o-2024-08-06"))
    assert not is_asked_model("openai/gpt-4o", ("gpt-4o", "gpt-4o-mini"))
