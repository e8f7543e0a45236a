"""What rows are measured on: the loopback endpoint, LMs on it, DSPy's own cache and ours, each put in place in turn."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import dspy
from dspy.clients import _deprecation, base_lm
from dspy.clients.cache import Cache

import dspy_cachectl as cachectl
from benchmarks.rounds import Block, Round, Side, interleaved
from dspy_cachectl.stores import open_stores
from tests.endpoint import Endpoint

ENGINES: dict[str, dict[str, Any]] = {
    "native": {"engine": "auto", "max_tokens": 1001},
    "litellm": {"engine": "litellm", "max_tokens": 1002},
}
"""What makes an LM ask through an engine. The engine is in no key: what differs keeps one from the other's records."""

MEMORY_BYTES, DISK_BYTES = 256 * 2**20, 30 * 10**9
SPARE = [{"role": "user", "content": "what is asked so that files are open and modules loaded before a round"}]
WARM = 2
"""How often all is asked before a hot round: what is decoded once, and what is kept from the second time on, is."""

Within = Callable[[], AbstractContextManager[Any]]

# DSPy's own adapters do not pay this warning, and a benchmark that asks by hand would pay it with each call.
_deprecation._warn = lambda message: None  # noqa: ARG005, SLF001

_ASKED: list[Any] = []

_WORDS = sorted(set(re.findall(r"[A-Za-z]{2,12}", " ".join(topics.values()))))
"""Words of English, as they are in Python's own documentation: what looks for secrets takes them for none."""


class Scene:
    """What one process measures with.

    Attributes:
        endpoint: The provider.
        folder: Where stores are made.
        rounds: How many rounds a row has.
    """

    def __init__(self, endpoint: Endpoint, folder: Path, rounds: int) -> None:
        self.endpoint = endpoint
        self.folder = folder
        folder.mkdir(parents=True)
        self.rounds = rounds
        self._numbers = itertools.count()
        endpoint.configure(answers={"": [text(random.Random(1), 1000)]})

    def plain(self, engine: str, **options: Any) -> Any:
        """Return an LM of DSPy's on the endpoint, that asks through an engine."""
        return _remembered(dspy.LM("openai/model", **self.options, **ENGINES[engine], **options))

    def governed(self, engine: str, **options: Any) -> Any:
        """Return an LM of ours that is otherwise the same."""
        return _remembered(cachectl.LM("openai/model", **self.options, **ENGINES[engine], **options))

    @property
    def options(self) -> dict[str, Any]:
        """What an LM on the endpoint is made with."""
        return {"api_base": self.endpoint.url, "api_key": "none"}

    @property
    def few(self) -> int:
        """How many rounds a row has of which one takes a second or more."""
        return max(3, self.rounds // 5)

    def hits(self, sides: Mapping[str, Side], rounds: int | None = None) -> dict[str, list[Round]]:
        """Time sides in turn, of which each is served everything.

        Raises:
            RuntimeError: If the provider was asked meanwhile.
        """
        before = self.endpoint.requests
        taken = interleaved(sides, rounds or self.rounds)
        if asked := self.endpoint.requests - before:
            raise RuntimeError(f"the provider was asked {asked} times for what was to be served")
        return taken

    def kept(self, engine: str, questions: Sequence[Any]) -> list[tuple[dict[str, Any], Any, list[str] | None]]:
        """Return what DSPy asks its cache to keep for some questions: request, answer, and names that are ignored."""
        cache = _Listening(True, False, str(self.new_folder()))
        with dspys_in_place(cache):
            asking(self.plain(engine), questions)()
        return cache.kept

    def new_folder(self) -> Path:
        """Return the path of a folder that is not there yet."""
        return self.folder / f"{next(self._numbers)}"


class Sides:
    """One row's two sides: DSPy's own cache with what is plain, ours with what is governed, and the same questions.

    Both begin with an empty folder, and everything is bought for each before a side is made.

    Args:
        scene: The scene.
        theirs: Asks everything once, with what is plain.
        ours: Asks everything once, with what is governed.
        spare: Asks something else, of the one or the other.
        within: The phase in which ours asks, opened anew for each time that everything is asked.
        store: Where ours keeps its entries behind the memory. None: in a folder of its own.
    """

    def __init__(
        self,
        scene: Scene,
        theirs: Block,
        ours: Block,
        *,
        spare: tuple[Block, Block] = (lambda: None, lambda: None),
        within: Within = nullcontext,
        store: str | None = None,
    ) -> None:
        self._theirs, self._ours, self._spare, self._within = theirs, ours, spare, within
        self.cache = dspys_cache(scene.new_folder())
        self.stores = open_stores(store or str(scene.new_folder()), memory_bytes=MEMORY_BYTES, disk_bytes=DISK_BYTES)
        with dspys_in_place(self.cache):
            spare[0]()
            theirs()
        with ours_in_place(self.stores), within():
            spare[1]()
            ours()

    def theirs(self, *, from_disk: bool = False) -> Side:
        """Return the side of DSPy's own cache; from disk: with nothing in memory."""

        @contextmanager
        def side() -> Iterator[Block]:
            with dspys_in_place(self.cache):
                if from_disk:
                    self.cache.reset_memory_cache()
                    self._spare[0]()
                else:
                    self._theirs()
                yield self._theirs

        return side

    def hot(self) -> Side:
        """Return the side of ours in which everything was served before."""

        @contextmanager
        def side() -> Iterator[Block]:
            with ours_in_place(self.stores):
                for _ in range(WARM):
                    with self._within():
                        self._ours()
                with self._within():
                    yield self._ours

        return side

    def first(self, *, from_disk: bool = False) -> Side:
        """Return the side of ours in which nothing was decoded before; from disk: with nothing in memory, either."""

        @contextmanager
        def side() -> Iterator[Block]:
            if not from_disk:
                with ours_in_place(self.stores), self._within():
                    self._ours()
            with ours_in_place(self.stores) as cache:
                if from_disk:
                    cache.reset_memory_cache()
                with self._within():
                    self._spare[1]()
                    yield self._ours

        return side


class _Listening(Cache):
    """A cache of DSPy's that notes what it is asked to keep."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.kept: list[tuple[dict[str, Any], Any, list[str] | None]] = []

    def put(self, request: Any, value: Any, ignored_args_for_cache_key: Any = None, *rest: Any, **more: Any) -> None:
        self.kept.append((dict(request), value, ignored_args_for_cache_key))
        super().put(request, value, ignored_args_for_cache_key, *rest, **more)


def dspys_cache(folder: Path | str) -> Cache:
    """Return a cache as DSPy makes its own, in a folder."""
    return Cache(True, True, str(folder), DISK_BYTES)


@contextmanager
def dspys_in_place(cache: Cache) -> Iterator[Cache]:
    """Let DSPy ask a cache of its own, and nothing of ours be in the way."""
    cachectl.uninstall()
    forget()
    dspy.cache = cache
    try:
        yield cache
    finally:
        vars(dspy).pop("cache", None)


@contextmanager
def ours_in_place(stores: Any) -> Iterator[cachectl.ManagedCache]:
    """Let DSPy ask the managed cache over some stores, in which nothing was decoded yet."""
    forget()
    try:
        yield cachectl.install(stores)
    finally:
        cachectl.uninstall()
        vars(dspy).pop("cache", None)


def prompts(count: int, size: int = 2000, seed: float = 0) -> list[list[dict[str, str]]]:
    """Return lists of four messages of so many bytes each, of words that are drawn."""
    rng = random.Random(seed)
    roles = ("system", "user", "assistant", "user")
    return [[{"role": role, "content": text(rng, size)} for role in roles] for _ in range(count)]


def text(rng: random.Random, size: int) -> str:
    """Return so many bytes of words that are drawn by lot."""
    return " ".join(rng.choices(_WORDS, k=size // 3))[:size]


def asking(lm: Any, questions: Sequence[Any], **options: Any) -> Block:
    """Return what asks an LM every question, one after another."""

    def ask() -> None:
        for messages in questions:
            lm(messages=messages, **options)

    return ask


def _remembered(lm: Any) -> Any:
    _ASKED.append(lm)
    return lm


def forget() -> None:
    """Empty the histories: no round pays for those before."""
    base_lm.GLOBAL_HISTORY.clear()
    for lm in _ASKED:
        lm.history.clear()
