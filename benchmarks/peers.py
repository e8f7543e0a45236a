"""A whole hit of ours by one of others that keep what models answer: DSPy, LiteLLM, LangChain, Inspect AI and joblib.

Each is asked as its users ask it, for the same prompts of the same endpoint. What is not installed, or has no server,
is left out: `make bench` runs this in .venv-bench, where all of `peers.txt` is.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson

from benchmarks.figures import Figure, compared
from benchmarks.hits import compiling
from benchmarks.rounds import Block, Side
from benchmarks.rows import row
from benchmarks.scene import SPARE, Scene, Sides, asking, prompts

COUNT = 50

Making = Callable[[Scene, list[Any]], Block]
"""Makes a peer ready, and returns what asks it all questions."""


@row("peer-memory")
def peer_memory(scene: Scene) -> Iterator[Figure]:
    """A hit from our memory, hot, by a hit from a peer's memory; the last keeps no call, only values."""
    peers = {"langchain": _langchain_memory, "litellm": _litellm_local, "dict": _dictionary}
    yield from _by_peers(scene, "peer-memory", peers)


@row("peer-disk")
def peer_disk(scene: Scene) -> Iterator[Figure]:
    """A hit from our disk, first, by a hit from a peer's disk; the last three keep no call, only values."""
    peers = {
        "langchain": _langchain_sqlite,
        "inspect": _inspect,
        "joblib": _joblib,
        "diskcache": _diskcache,
        "fanoutcache": _fanoutcache,
    }
    yield from _by_peers(scene, "peer-disk", peers, from_disk=True)


@row("peer-redis")
def peer_redis(scene: Scene) -> Iterator[Figure]:
    """A hit from Redis, first, by a hit from a peer's Redis; the last keeps no call, only values."""
    if shutil.which("redis-server") is None or importlib.util.find_spec("redis") is None:
        return
    from tests.stores.servers import Server

    server = Server(scene.new_folder())
    peers = {
        "langchain": functools.partial(_langchain_redis, server.port),
        "litellm": functools.partial(_litellm_redis, server.port),
        "get": functools.partial(_redis_get, server.port),
    }
    try:
        yield from _by_peers(scene, "peer-redis", peers, from_disk=True, store=server.url)
    finally:
        server.kill()


def _by_peers(
    scene: Scene, name: str, peers: Mapping[str, Making], *, from_disk: bool = False, store: str | None = None
) -> Iterator[Figure]:
    questions, plain, governed = prompts(COUNT), scene.plain("native"), scene.governed("native")
    sides = Sides(
        scene,
        asking(plain, questions),
        asking(governed, questions),
        spare=(asking(plain, [SPARE]), asking(governed, [SPARE])),
        within=compiling,
        store=store,
    )
    others: dict[str, Side] = {} if store else {"dspy": sides.theirs(from_disk=from_disk)}
    for peer, make in peers.items():
        if importlib.util.find_spec(_MODULES.get(peer, "os")) is not None:
            others[peer] = functools.partial(_warm, make(scene, questions))
    taken = scene.hits({"ours": sides.first(from_disk=True) if from_disk else sides.hot(), **others})
    for peer in others:
        yield compared(name, taken["ours"], taken[peer], case=peer, calls=COUNT)


_MODULES = {"langchain": "langchain_openai", "litellm": "litellm", "inspect": "inspect_ai", "joblib": "joblib"}


@contextmanager
def _warm(block: Block) -> Iterator[Block]:
    block()
    yield block


def _bought(block: Block) -> Block:
    block()
    return block


def _langchain(scene: Scene, questions: list[Any], cache: Any) -> Block:
    from langchain_openai import ChatOpenAI

    warnings.simplefilter("ignore")  # its caches announce a change with each hit
    model = ChatOpenAI(model="model", base_url=scene.endpoint.url, api_key="none", max_tokens=1003, cache=cache)

    def ask() -> None:
        for messages in questions:
            model.invoke(messages)

    return _bought(ask)


def _langchain_memory(scene: Scene, questions: list[Any]) -> Block:
    from langchain_core.caches import InMemoryCache

    return _langchain(scene, questions, InMemoryCache())


def _langchain_sqlite(scene: Scene, questions: list[Any]) -> Block:
    from langchain_community.cache import SQLiteCache

    return _langchain(scene, questions, SQLiteCache(str(scene.new_folder().with_suffix(".db"))))


def _langchain_redis(port: int, scene: Scene, questions: list[Any]) -> Block:
    import redis
    from langchain_community.cache import RedisCache

    return _langchain(scene, questions, RedisCache(redis.Redis(port=port)))


def _litellm(scene: Scene, questions: list[Any], **cache: Any) -> Block:
    import litellm

    kept = litellm.Cache(**cache)

    def ask() -> None:
        litellm.cache = kept
        try:
            for messages in questions:
                litellm.completion("openai/model", messages, max_tokens=1004, caching=True, **scene.options)
        finally:
            litellm.cache = None

    return _bought(ask)


def _litellm_local(scene: Scene, questions: list[Any]) -> Block:
    return _litellm(scene, questions, type="local")


def _litellm_redis(port: int, scene: Scene, questions: list[Any]) -> Block:
    return _litellm(scene, questions, type="redis", host="127.0.0.1", port=str(port))


def _inspect(scene: Scene, questions: list[Any]) -> Block:
    os.environ["INSPECT_CACHE_DIR"] = str(scene.new_folder())
    from inspect_ai.model import (
        CachePolicy,
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageUser,
        GenerateConfig,
        get_model,
    )

    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    config, loop = GenerateConfig(max_tokens=1005), asyncio.new_event_loop()
    model = get_model("openai-api/bench/model", base_url=scene.endpoint.url, api_key="none", config=config)
    policy = CachePolicy(expiry=None, per_epoch=False)
    asked = [[kinds[message["role"]](content=message["content"]) for message in messages] for messages in questions]

    async def ask() -> None:
        for messages in asked:
            await model.generate(messages, cache=policy)

    return _bought(lambda: loop.run_until_complete(ask()))


def _values(scene: Scene, questions: list[Any]) -> list[tuple[Any, Any]]:
    kept = scene.kept("native", questions)
    return [
        ({"model": "openai/model", "messages": messages}, value)
        for messages, (_, value, _) in zip(questions, kept, strict=True)
    ]


def _key(request: Any) -> str:
    return hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _dictionary(scene: Scene, questions: list[Any]) -> Block:
    values = _values(scene, questions)
    kept = {_key(request): orjson.dumps(value) for request, value in values}
    return lambda: [orjson.loads(kept[_key(request)]) for request, _ in values]


def _joblib(scene: Scene, questions: list[Any]) -> Block:
    import joblib

    values = {_key(request): value for request, value in _values(scene, questions)}
    kept = joblib.Memory(scene.new_folder(), verbose=0).cache(_looked_up, ignore=["values"])
    return _bought(lambda: [kept({"model": "openai/model", "messages": messages}, values) for messages in questions])


def _looked_up(request: Any, values: dict[str, Any]) -> Any:
    return values[_key(request)]


def _diskcache(scene: Scene, questions: list[Any]) -> Block:
    import diskcache

    values, kept = _values(scene, questions), diskcache.Cache(str(scene.new_folder()))
    for request, value in values:
        kept[_key(request)] = orjson.dumps(value)
    return lambda: [orjson.loads(kept[_key(request)]) for request, _ in values]


def _fanoutcache(scene: Scene, questions: list[Any]) -> Block:
    import diskcache

    values, kept = _values(scene, questions), diskcache.FanoutCache(str(scene.new_folder()), shards=16)
    for request, value in values:
        kept[_key(request)] = value
    return lambda: [kept[_key(request)] for request, _ in values]


def _redis_get(port: int, scene: Scene, questions: list[Any]) -> Block:
    import redis

    values, client = _values(scene, questions), redis.Redis(port=port)
    for request, value in values:
        client.set(_key(request), orjson.dumps(value))
    return lambda: [orjson.loads(client.get(_key(request))) for request, _ in values]
