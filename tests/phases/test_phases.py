"""Which phase rules a call: threads, strays, late calls, nesting, and DSPy's own settings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspy_cachectl as cachectl
from dspy_cachectl import Policy
from dspy_cachectl.errors import ConfigurationError
from tests.calls.support import MakeLM, assert_counted, evaluate, examples, qa
from tests.endpoint import Endpoint


def in_threads(function: Callable[[], Any], times: int = 2) -> list[Any]:
    """Call in a bare pool, which does not carry DSPy's settings."""
    with ThreadPoolExecutor(times) as pool:
        return [future.result() for future in [pool.submit(function) for _ in range(times)]]


def strays_said(caplog: pytest.LogCaptureFixture) -> int:
    return len([line for line in caplog.messages if "carries no phase" in line])


class TestStrays:
    """Calls from threads that a phase does not reach."""

    def test_counted_and_said_once(self, endpoint: Endpoint, lm: MakeLM, caplog: pytest.LogCaptureFixture) -> None:
        """Strays follow the process's default, are counted in the fresh phase they strayed from, and said once."""
        asked = lm()
        with cachectl.phase("eval") as run:
            asked("inside")
            in_threads(lambda: asked("stray"), 4)
        assert {"inside": 1, "stray": 1} == endpoint.counts()
        assert_counted_strays(run, calls=1, stray=4)
        assert strays_said(caplog) == 1
        assert cachectl.stats().calls == 5

    def test_warning_names_the_remedies(self, lm: MakeLM, caplog: pytest.LogCaptureFixture) -> None:
        """The warning says which phase it is about and what to do."""
        with cachectl.phase("eval"):
            in_threads(lambda: lm()("stray"), 1)
        (warning,) = [record for record in caplog.records if "carries no phase" in record.message]
        assert (logging.WARNING, "dspy_cachectl") == (warning.levelno, warning.name)
        for word in ("'eval'", "everywhere=True", "cachectl.carry"):
            assert word in warning.message

    def test_none_where_nothing_is_at_stake(self, lm: MakeLM, caplog: pytest.LogCaptureFixture) -> None:
        """In `compile` a bare thread does what the phase would: nothing is counted, nothing said."""
        with cachectl.phase("compile") as run:
            in_threads(lambda: lm()("elsewhere"))
        assert run.stats.stray == 0
        assert strays_said(caplog) == 0

    def test_everywhere(self, endpoint: Endpoint, lm: MakeLM, caplog: pytest.LogCaptureFixture) -> None:
        """everywhere=True holds in bare threads, while it lasts."""
        asked = lm()
        program = qa_with(asked)
        with cachectl.phase("eval", everywhere=True) as run:
            in_threads(lambda: asked("hello"), 4)
            in_threads(lambda: evaluate(program, examples(1), threads=2), 2)
        assert endpoint.requests == 6
        assert_counted(run.stats, fresh=6, stray=0)
        in_threads(lambda: asked("hello"), 2)
        assert endpoint.requests == 7
        assert strays_said(caplog) == 0

    def test_everywhere_yields_to_a_phase_of_ones_own(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """A thread that opens its own phase is ruled by that one."""

        def own() -> None:
            with cachectl.phase("compile"):
                asked("hello")

        asked = lm()
        with cachectl.phase("eval", everywhere=True) as run:
            in_threads(own)
        assert endpoint.requests == 1
        assert run.stats.calls == 0

    def test_carry(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """carry(function) takes the phase along, for functions, programs and coroutine functions."""
        asked = lm()
        program = qa_with(asked)

        async def ask() -> Any:
            return await asked.acall("hello")

        with cachectl.phase("eval") as run:
            in_threads(cachectl.carry(lambda: asked("hello")))
            carried = cachectl.carry(program)
            in_threads(lambda: carried(question="Q?"))
            coroutine = cachectl.carry(ask)
            in_threads(lambda: asyncio.run(coroutine()))
        assert endpoint.requests == 6
        assert_counted(run.stats, fresh=6, stray=0)

    def test_carried_in_no_phase(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """What was carried where there was no phase runs in none, whatever is open where it is called."""
        asked = lm(temperature=1.0)
        carried = cachectl.carry(lambda: (asked("hello"), cachectl.current_phase()))
        answer, _ = carried()
        with cachectl.phase("eval", everywhere=True) as run:
            assert carried() == (answer, None)
            in_threads(carried)
        assert endpoint.requests == 1
        assert_counted(run.stats, fresh=0, stray=0)
        with cachectl.phase("check", Policy.REPLAY):
            assert carried() == (answer, None)

    def test_roles_are_guarded_too(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """A role that is replayed is not called from a bare thread either."""
        asked = lm(role="generator")

        def ask() -> None:
            with pytest.raises(cachectl.CacheMissError):
                asked("hello")

        with (
            pytest.raises(cachectl.ReplayIncompleteError),
            cachectl.phase("compile", roles={"generator": Policy.REPLAY}) as run,
        ):
            in_threads(ask)
        assert endpoint.requests == 0
        assert (run.stats.missed, run.stats.stray) == (2, 2)


def assert_counted_strays(run: cachectl.PhaseRun, *, calls: int, stray: int) -> None:
    assert (calls, stray) == (run.stats.calls, run.stats.stray)


def qa_with(lm: Any) -> dspy.Predict:
    program = qa()
    program.set_lm(lm)
    return program


class TestLateCalls:
    """Calls that arrive when their phase has ended."""

    def test_counted_apart(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """A straggler goes on under its phase's policy and run, and is counted as late in them."""
        asked = lm(temperature=1.0)
        go = threading.Event()
        with cachectl.phase("eval", run_id="over") as run:
            asked("in time")

            def straggle() -> Any:
                go.wait()
                return asked("too late")

            later = cachectl.carry(straggle)
        with ThreadPoolExecutor() as pool:
            future = pool.submit(later)
            assert run.closed
            go.set()
            answer = future.result()
        assert (run.stats.calls, run.stats.late) == (2, 1)
        with cachectl.phase("eval", run_id="over"):
            assert asked("too late") == answer
        assert endpoint.requests == 2

    def test_a_replay_stays_closed(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """After a replay's end, what still runs under it makes no request."""
        asked = lm()
        with cachectl.phase("check", Policy.REPLAY):
            later = cachectl.carry(lambda: asked("hello"))
        with pytest.raises(cachectl.CacheMissError):
            later()
        assert endpoint.requests == 0


class TestNesting:
    """Phases inside phases."""

    def test_the_inner_one_rules(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """Inside, the inner phase holds; after it, the outer one again."""
        asked = lm()
        with cachectl.phase("eval") as outer:
            asked("hello")
            with cachectl.phase("compile") as inner:
                asked("hello")
                asked("hello")
                assert cachectl.current_phase() is inner
            asked("hello")
            assert cachectl.current_phase() is outer
        assert cachectl.current_phase() is None
        assert endpoint.requests == 3
        assert_counted(outer.stats, fresh=2)
        assert_counted(inner.stats, fresh=1, reused=1)

    def test_a_compile_inside_an_evaluation(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """KNNFewShot compiles at inference time: with an explicit `eval` around it all is fresh."""
        embedder = dspy.Embedder(lambda texts: [[float(len(text))] for text in texts])
        program = dspy.KNNFewShot(k=2, trainset=examples(4), vectorizer=embedder, metric=lambda *_: True).compile(qa())
        dspy.configure(lm=lm(temperature=1.0), callbacks=[cachectl.AutoPhase()])
        with cachectl.phase("eval", run_id="neighbours"):
            score = evaluate(program, examples(2), threads=1)
        bought = endpoint.requests
        with cachectl.phase("eval", run_id="neighbours"):
            assert score == evaluate(program, examples(2), threads=1)
        assert bought == endpoint.requests > 2

    def test_restored_after_an_error(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """An error leaves no phase behind."""
        with pytest.raises(RuntimeError), cachectl.phase("eval") as run:
            raise RuntimeError
        assert run.closed
        assert cachectl.current_phase() is None
        for _ in range(2):
            lm()("hello")
        assert endpoint.requests == 1

    def test_decorator(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """Each call of a decorated function is a run of its own."""
        asked = lm()

        @cachectl.phase("eval")
        def measure() -> str | None:
            asked("hello")
            current = cachectl.current_phase()
            return current and current.run_id

        assert len({measure(), measure()}) == 2
        assert endpoint.requests == 2

    @pytest.mark.parametrize("what", [3, dspy.Predict], ids=["a number", "a class"])
    def test_what_is_no_function_is_not_decorated(self, what: Any) -> None:
        """What a class makes would be asked outside of the phase."""
        with pytest.raises(ConfigurationError, match="decorate a method"):
            cachectl.phase("eval")(what)

    async def test_async(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """Two tasks hold two phases at the same time."""
        asked = lm()

        async def task(name: str) -> int:
            async with cachectl.phase(name) as run:
                for _ in range(3):
                    await asked.acall("hello")
                assert cachectl.current_phase() is run
            return run.stats.requests

        assert [3, 1] == list(await asyncio.gather(task("eval"), task("compile")))
        assert endpoint.requests == 4


class TestSettings:
    """What DSPy's settings do inside a phase."""

    def test_configure_inside(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """`dspy.configure` takes effect inside a block, and in DSPy's threads there, and stays after it."""
        dspy.configure(lm=lm("openai/first"))
        with cachectl.phase("eval") as run:
            dspy.configure(lm=lm("openai/second"))
            qa()(question="Q?")
            dspy.Parallel(num_threads=2, disable_progress_bar=True)([(qa(), {"question": "Q?"})] * 2)
        qa()(question="Q?")
        assert ["second"] * 4 == [request["body"]["model"] for request in endpoint.log()]
        assert 3 == run.stats.fresh

    @pytest.mark.parametrize("set_for_all", [dspy.context, dspy.configure], ids=["context", "configure"])
    @pytest.mark.parametrize("governed", [True, False], ids=["governed", "plain"])
    def test_options_that_reach_no_lm(
        self,
        endpoint: Endpoint,
        lm: MakeLM,
        plain_lm: MakeLM,
        caplog: pytest.LogCaptureFixture,
        governed: bool,
        set_for_all: Callable[..., Any],
    ) -> None:
        """A rollout id or temperature among DSPy's settings is said once, with what to write; which then works."""
        cachectl.install()
        dspy.configure(lm=(lm if governed else plain_lm)())
        for nothing in ({"temperature": None}, {"rollout_id": None}):
            with set_for_all(**nothing) or contextlib.nullcontext():
                qa()(question="Q?")
        assert not [line for line in caplog.messages if "reaches no LM" in line]
        for number in range(3):
            with set_for_all(rollout_id=number, temperature=1.0) or contextlib.nullcontext():
                qa()(question="Q?")
        with set_for_all(rollout_id=None, temperature=0.5) or contextlib.nullcontext():
            qa()(question="Q?")
        (said,) = [line for line in caplog.messages if "reaches no LM" in line]
        assert "config=dict(rollout_id=0, temperature=1.0)" in said
        assert "phase(" in said
        assert "share" not in said  # in a phase that draws afresh they do not
        assert endpoint.requests == 1
        for number in range(3):
            qa()(question="Q?", config={"rollout_id": number, "temperature": 1.0})
        assert endpoint.requests == 4

    def test_configure_cache_inside(self, endpoint: Endpoint, lm: MakeLM, caplog: pytest.LogCaptureFixture) -> None:
        """A cache that DSPy was given in between is noticed at the next phase, said once, and replaced."""
        asked = lm()
        with cachectl.phase("eval", run_id="first"):
            asked("hello")
            dspy.configure_cache(enable_disk_cache=False)
        for _ in range(2):
            with cachectl.phase("eval", run_id="first") as run:
                asked("hello")
            assert isinstance(dspy.cache, cachectl.ManagedCache)
            assert_counted(run.stats, resumed=1)
            dspy.configure_cache(enable_disk_cache=False)
        assert endpoint.requests == 1
        assert len([line for line in caplog.messages if "configure_cache() had replaced" in line]) == 1

    def test_somebody_elses_cache(self, lm: MakeLM) -> None:
        """Another package's cache is left alone, and a phase that needs ours says so."""

        class Theirs(dspy.clients.Cache):
            pass

        dspy.cache = Theirs(enable_disk_cache=False, enable_memory_cache=True, disk_cache_dir=None)
        with cachectl.phase("compile"):
            assert type(dspy.cache) is Theirs
        with pytest.raises(ConfigurationError, match="install"), cachectl.phase("eval"):
            pass
        cachectl.install()
        with cachectl.phase("eval"):
            assert type(dspy.cache) is cachectl.ManagedCache

    def test_the_users_callbacks_stay(self, endpoint: Endpoint, lm: MakeLM) -> None:
        """A phase adds to the configured callbacks and takes none away."""

        class Seen(dspy.utils.callback.BaseCallback):
            def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
                seen.append(type(instance).__name__)

        seen: list[str] = []
        dspy.configure(lm=lm(), callbacks=[Seen()])
        with cachectl.phase("eval") as run:
            score = evaluate(qa(), examples(2))
        assert ["Evaluate"] == seen
        assert [(score, 2, "exact")] == [(one.score, one.n, one.metric) for one in run.evaluations]

    @pytest.mark.parametrize("phase", ["compile", "eval"])
    def test_saved_inside(self, endpoint: Endpoint, lm: MakeLM, phase: str, tmp_path: Path) -> None:
        """DSPy's settings can be saved inside a phase, in the middle of an evaluation too."""

        def metric(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> float:
            dspy.settings.save(str(tmp_path / "settings.pkl"))
            return 1.0

        dspy.configure(lm=lm())
        with cachectl.phase(phase):
            result = dspy.Evaluate(devset=examples(1), metric=metric, num_threads=1)(qa())
        assert result.score == 100.0
        loaded = dspy.load_settings(str(tmp_path / "settings.pkl"), allow_pickle=True)
        assert isinstance(loaded["lm"], cachectl.LM)
