"""What one answer of a program was made of, and what an evaluation finds and leaves in the prediction library."""

from __future__ import annotations

import itertools
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dspy

from dspy_cachectl.accounting.asked import AskedModel, counted
from dspy_cachectl.accounting.ledger import Tally
from dspy_cachectl.accounting.spent import Spent
from dspy_cachectl.accounting.troubles import Trouble
from dspy_cachectl.boundary.shown import logger_for
from dspy_cachectl.calls.account import count_elsewhere
from dspy_cachectl.calls.call import Call
from dspy_cachectl.calls.dspys_choice import keeps_off_disk
from dspy_cachectl.config import OFF, settings, switched
from dspy_cachectl.context.process import state
from dspy_cachectl.context.ruling import phase_here
from dspy_cachectl.entries.records import Origin
from dspy_cachectl.entries.token_counts import NAMES
from dspy_cachectl.entries.values import UnstorableError
from dspy_cachectl.errors import ConfigurationError, CorruptEntryError
from dspy_cachectl.evaluation.arguments import DependsOn, declared
from dspy_cachectl.evaluation.observed_program import output_hash
from dspy_cachectl.evaluation.scoring import Metric, Scored
from dspy_cachectl.fingerprints.data import Question
from dspy_cachectl.fingerprints.models import generation_config, model_identity
from dspy_cachectl.fingerprints.programs import program_fingerprint
from dspy_cachectl.fingerprints.reached import lm_of_settings
from dspy_cachectl.fingerprints.unseen import unseen_by
from dspy_cachectl.policy import Kind
from dspy_cachectl.predictions.keys import SnapshotKey
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.predictions.outputs import output_of, restore
from dspy_cachectl.predictions.rows import Failure, PredictionRow, Score, readable
from dspy_cachectl.predictions.session import Session, score_in
from dspy_cachectl.reports.apart.corpus import with_corpus
from dspy_cachectl.reports.apart.slices import briefly
from dspy_cachectl.reports.report import EvalReport
from dspy_cachectl.reports.results import DrawResult
from dspy_cachectl.reports.texts import plural

logger = logger_for(__name__)

Predictions = bool | str | os.PathLike[str] | Library


@dataclass
class AnswerCost:
    """The LM calls of one answer: of a question and a repeat.

    Attributes:
        draws: What identifies each of the LM's answers, in the order in which they ended.
        tally: What happened to the calls.
        tokens: The tokens that it is made of, whoever paid for them, and whatever was bought and not used.
        cost: Likewise US dollars; None where the price of one of them is not known.
        seconds: Likewise seconds of the provider.
        created: When each of the LM's answers was bought, in Unix seconds, where that is known.
        troubles: What went wrong around them, by predictor.
        spent: What they came to, by predictor.
        models: What answered them, as it was asked, and how often.
        strayed: Whether calls were made out of sight while it was made.
    """

    draws: list[str] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    cost: float | None = 0.0
    seconds: float = 0.0
    created: list[float] = field(default_factory=list)
    troubles: tuple[Trouble, ...] = ()
    spent: tuple[Spent, ...] = ()
    models: Counter[AskedModel] = field(default_factory=Counter)
    strayed: bool = False

    def add(self, call: Call, how: AskedModel | None) -> None:
        """Add a call that has ended, and what answered it."""
        self.tally.add(call.tally)
        self._add_answer(call.answered.origin, has_price=call.asked.kind is not Kind.EMBEDDING)
        if how is not None:
            self.models[how] += 1
        if call.answered.outcome not in {None, "failed", "missed"}:
            self.draws.append(call.draw_id)

    def _add_answer(self, origin: Origin | None, *, has_price: bool) -> None:
        # By where an answer comes from and not by the tally, which knows of one that was bought and not used.
        if origin is None:
            return
        for name in NAMES:
            self.tokens[name] += getattr(origin, name) or 0
        if origin.cost is None and has_price:
            self.cost = None
        elif self.cost is not None:
            self.cost += origin.cost or 0.0
        self.seconds += origin.seconds
        if origin.created:
            self.created.append(origin.created)

    def facts(self) -> dict[str, Any]:
        """Return what it is made of as fields of a kept prediction."""
        return {
            "draws": tuple(self.draws),
            **self.tokens,
            "cost": self.cost,
            "seconds": self.seconds,
            "troubles": self.troubles,
            "spent": self.spent,
            "models": counted(self.models),
            "strayed": self.strayed,
        }


class KeptPredictions:
    """The kept predictions of one evaluation. Thread-safe.

    Args:
        library: The library; None where nothing is kept.
        session: Its session, likewise.
        program: The program, for the types of its fields.
        metrics: The metrics.
        declared: Whether the user said what they depend on that cannot be seen.

    Attributes:
        asked: The models that answered what was loaded.
        judged: By the hash of a metric, those that answered its own calls for the scores that were.
    """

    def __init__(
        self,
        library: Library | None,
        session: Session | None,
        program: Any,
        metrics: Sequence[Metric],
        *,
        declared: bool,
    ) -> None:
        self._library, self._session, self._program = library, session, program
        self._metrics, self._declared = metrics, declared
        self.asked: list[AskedModel] = []
        self.judged: defaultdict[str, list[AskedModel]] = defaultdict(list)
        self._unkept: list[Question] = []
        self._loaded = 0
        self._rescored: Counter[str] = Counter()
        # Of the answers that were loaded, until they are asked for: not to read each row twice.
        self._scores: dict[tuple[Question, int], Mapping[str, Score]] = {}
        self._lock = threading.Lock()

    def beside(self) -> KeptPredictions:
        """Return the same predictions for another piece of the evaluation, which counts what it loads by itself."""
        return KeptPredictions(self._library, self._session, self._program, self._metrics, declared=self._declared)

    @property
    def session(self) -> Session | None:
        """The session of the library; None where nothing is kept."""
        return self._session

    @property
    def path(self) -> str | None:
        """Where they are, or will be."""
        return None if self._session is None else str(self._session.path)

    def past(self) -> Iterator[PredictionRow]:
        """Yield the answers that this program gave before, asked in the same way, to whatever questions."""
        if self._library is not None and self._session is not None:
            yield from self._library.rows_of(self._session.key.base)

    def provenance(self) -> dict[str, Any]:
        """Return what of the answers was kept before and is kept now, as fields of a report's provenance."""
        session = self._session
        if session is None:
            return {"predictions": "off", "changes": (), "snapshot": None, "unsaved": 0}
        return {
            "predictions": session.status,
            "changes": tuple(session.changes),
            "snapshot": session.path.name,
            "unsaved": len(self._unkept),
            "unseen": self._unseen(),
        }

    def prediction(self, question: Question, repeat: int) -> tuple[Any, DrawResult] | None:
        """Return a kept answer as the program returned it, with what it was made of; None where there is none."""
        row = None if self._session is None else self._session.kept_row(question, repeat)
        if row is None or row.output is None:
            return None
        try:
            prediction = restore(row.output, self._program)
        except CorruptEntryError:
            return None  # the field's type has changed with the program; it is computed again
        saved = Tally(
            calls=len(row.draws),
            loaded=len(row.draws),
            **{f"{name}_saved": getattr(row, name) or 0 for name in NAMES},
            cost_saved=row.cost or 0.0,
            seconds_saved=row.seconds or 0.0,
        )
        count_elsewhere(saved, phase_here())
        with self._lock:
            self._loaded += 1
            self.asked += row.models
            self._scores[question, repeat] = row.scores
        return prediction, DrawResult(
            score=0.0,
            draw="+".join(sorted(map(str, row.draws))),
            output=output_hash(prediction),
            loaded=True,
            tokens=saved.tokens_saved,
            cached_tokens=row.cached_tokens or 0,
            cache_creation_tokens=row.cache_creation_tokens or 0,
            reasoning_tokens=row.reasoning_tokens or 0,
            cost=row.cost,
            seconds=row.seconds or 0.0,
            oldest=row.created,
            newest=row.created if row.newest is None else row.newest,
            troubles=row.troubles,
            spent=row.spent,
            strayed=row.strayed,
        )

    def _unseen(self) -> tuple[str, ...]:
        """Return what may have changed under the answers and scores that were loaded, and that nobody declared."""
        if self._declared or not self._loaded:
            return ()
        kept = [one.function for one in self._metrics if self._loaded > self._rescored[one.hash]]
        return tuple(dict.fromkeys((*unseen_by(self._program), *itertools.chain(*map(unseen_by, kept)))))

    def keep(self, question: Question, repeat: int, example: dspy.Example, prediction: Any, made: AnswerCost) -> None:
        """Keep an answer, or the error in its place, at once. An error is asked again, and said.

        An answer that has no stored form is counted; its LM answers are in the store.
        """
        if self._session is None:
            return
        if made.tally.by_other_models:
            # As the answers themselves: the run's own are resumed from the store, and nobody else's are these.
            self._unkept.append(question)
            return
        failure = Failure.of(prediction) if isinstance(prediction, Exception) else None
        try:
            self._session.keep(
                PredictionRow(
                    example_key=question.example_key,
                    occurrence=question.occurrence,
                    repeat=repeat,
                    inputs=readable(dict(example.inputs().items())),
                    output=None if failure else output_of(prediction, self._program),
                    error=failure,
                    reference=readable(dict(example.labels().items())),
                    created=min(made.created, default=0.0),
                    newest=max(made.created, default=None),
                    **made.facts(),
                )
            )
        except UnstorableError as error:
            state.say_once("unsaved", f"a prediction cannot be kept and will be made again: {error}")
            self._unkept.append(question)

    def scores(self, question: Question, repeat: int) -> dict[str, Scored]:
        """Return the kept scores of an answer by the hashes of metrics: of those that judged it against this label."""
        if self._session is None:
            return {}
        kept = self._scores.pop((question, repeat), None)
        if kept is None:
            row = self._session.kept_row(question, repeat)
            kept = {} if row is None else row.scores
        found = {one.hash: said for one in self._metrics if (said := score_in(kept, question, one.hash)) is not None}
        with self._lock:
            for name, one in found.items():
                self.judged[name] += one.judges
        return {name: Scored(one.score, kept=True, feedback=one.feedback) for name, one in found.items()}

    def rescored(self, metric: str) -> None:
        """Note that a metric judged a kept answer anew."""
        with self._lock:
            self._rescored[metric] += 1

    def rescored_by(self, metric: str) -> int:
        """Return how many kept answers a metric judged anew."""
        return self._rescored[metric]

    def keep_score(
        self,
        question: Question,
        repeat: int,
        metric: str,
        scored: Scored,
        example: dspy.Example,
        *,
        judges: tuple[AskedModel, ...],
    ) -> None:
        """Keep a score, and what answered the metric's own calls for it."""
        if self._session is not None:
            self._session.keep_score(
                question,
                repeat,
                metric,
                Score(question.label_key, scored.score, scored.feedback, judges),
                reference=readable(dict(example.labels().items())),
            )

    def log_beginning(self, wanted: int) -> None:
        """Log how many predictions of those that are wanted are made now, and why."""
        session = self._session
        missing = wanted if session is None else wanted - session.kept_before
        if missing > 0:
            why = "none are kept" if session is None else "; ".join(session.changes)
            logger.info("generating %d of %s%s", missing, plural(wanted, "prediction"), f" ({why})" if why else "")

    def finish(self, report: EvalReport) -> EvalReport:
        """Write the snapshot, and return the report with where it is and how much room it and the others take."""
        report = with_corpus(report, {one.name: one.function for one in self._metrics})
        if self._library is None or self._session is None:
            return report
        made = report.provenance
        metadata = {
            "evaluation_seconds": made.seconds,
            "phase": made.phase,
            "policy": made.policy,
            "metric": made.metric,
            "metric_hash": made.metric_hash,
            "judged_by": [made.metric_hash, *(one.metric_hash for one in made.others)],
            "versions": dict(made.versions),
            "program_text": dict(made.program_text),
        }
        found = {
            name: {
                **one.summary(),
                "metric_hash": one.provenance.metric_hash,
                "failure_score": made.failure_score,
                **({"slices": slices} if (slices := briefly(one.slices)) else {}),
            }
            for name, one in report.metrics.items()
        }
        # What all parts together come to, one of them does not know.
        path = self._session.finish(metadata, found if made.shard is None else {})
        if path is None:
            return report
        self._session.close()  # a journal that is not needed any more takes no room
        made = replace(made, library_bytes=self._library.usage(), library_limit=self._library.max_bytes)
        return replace(report, path=str(path), provenance=made)


def library_of(predictions: Predictions | None) -> Library | None:
    """Return the library that `evaluate(predictions=)` names, or None where nothing is to be kept.

    Raises:
        ConfigurationError: If it names none.
    """
    if isinstance(predictions, Library):
        return predictions
    if isinstance(predictions, str) and not predictions.strip():
        predictions = None  # an empty text says nothing
    is_on = settings().predictions != OFF if predictions is None else switched(predictions)
    if is_on is False:
        return None
    if is_on is None:
        if not isinstance(predictions, (str, os.PathLike)):
            raise ConfigurationError(f"predictions is True, False, a folder or a Library, not {predictions!r}")
        return Library.configured(predictions)
    if phase_here().cassette is not None:
        return None  # a cassette records calls, and kept predictions make none
    library = Library.configured()
    if keeps_off_disk():
        state.say_once(
            "predictions-on-disk",
            "dspy.configure_cache() keeps nothing on disk, and evaluate() keeps its predictions in "
            f"{library.root}; evaluate(..., predictions=False) keeps none, nor does the setting predictions",
        )
    return library


def key_of(program: Any, temperature: float | None, dataset: str, depends_on: DependsOn) -> SnapshotKey:
    """Return what a program's predictions depend on.

    Args:
        program: The program.
        temperature: What the phase lends.
        dataset: The hash of the questions.
        depends_on: See `evaluate`.
    """
    lm = lm_of_settings(program)
    return SnapshotKey(
        model=model_identity(lm, program=program),
        program=program_fingerprint(program),
        generation=generation_config(lm, temperature, program=program) | declared(depends_on),
        dataset=dataset,
    )
