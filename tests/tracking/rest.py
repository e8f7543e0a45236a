"""A tracking server's REST API, read with plain HTTP: what the tests believe."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from tests.limits import PATIENCE


class Rest:
    """Reads one server.

    Attributes:
        url: Where it listens.
        pid: Its process, which leads a group of its own.
        folder: Where it keeps everything.
    """

    def __init__(self, url: str, *, pid: int, folder: Path) -> None:
        self.url, self.pid, self.folder = url, pid, folder

    def runs_of(self, uid: str, *, experiments: tuple[str, ...] = ("0",), deleted: bool = False) -> list[Run]:
        """Every run that carries this uid; deleted ones only if they are asked for."""
        found = self._ask(
            "runs/search",
            {
                "experiment_ids": list(experiments),
                "filter": f"tags.`dspy_cachectl.uid` = '{uid}'",
                "max_results": 100,
                "run_view_type": "ALL" if deleted else "ACTIVE_ONLY",
            },
        )
        return [Run(run) for run in found.get("runs", [])]

    def all_runs(self, experiment: str = "0") -> list[Run]:
        """Every run of an experiment."""
        found = self._ask("runs/search", {"experiment_ids": [experiment], "max_results": 1000})
        return [Run(run) for run in found.get("runs", [])]

    def run(self, run_id: str) -> Run:
        """One run."""
        return Run(self._ask(f"runs/get?run_id={run_id}")["run"])

    def history(self, run_id: str, metric: str) -> list[tuple[int, float, int]]:
        """All points of a metric as (step, value, timestamp)."""
        # Old servers take a number that is not given for 0.
        found = self._ask(f"metrics/get-history?run_id={run_id}&metric_key={metric}&max_results=1000")
        return [(int(m.get("step", 0)), m["value"], int(m["timestamp"])) for m in found.get("metrics", [])]

    def experiment(self, name: str) -> str:
        """The id of an experiment."""
        return str(self._ask(f"experiments/get-by-name?experiment_name={name}")["experiment"]["experiment_id"])

    def create_experiment(self, name: str) -> str:
        """An experiment, by its id."""
        return str(self._ask("experiments/create", {"name": name})["experiment_id"])

    def create_run(self, experiment_id: str = "0") -> str:
        """A run of somebody else's."""
        return str(self._ask("runs/create", {"experiment_id": experiment_id})["run"]["info"]["run_id"])

    def artifacts(self, run_id: str, folder: str = "dspy_cachectl") -> list[str]:
        """The paths of a run's files in a folder."""
        found = self._ask(f"artifacts/list?run_id={run_id}&path={folder}")
        return sorted(item["path"] for item in found.get("files", []))

    def download(self, run: Run, path: str) -> bytes:
        """The content of a run's file."""
        folder = run["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
        with urllib.request.urlopen(
            f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{folder}/{path}", timeout=PATIENCE
        ) as answer:
            return bytes(answer.read())

    def traces(self, experiment: str) -> list[Trace]:
        """Every trace of an experiment, with its spans."""
        place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
        infos: list[dict[str, Any]] = []
        token = None
        while token != "":
            page = {"locations": [place], "max_results": 500, **({} if token is None else {"page_token": token})}
            found = self._ask("traces/search", page, version="3.0")
            infos += found.get("traces", [])
            token = found.get("next_page_token", "")
        return [
            Trace(info, self._ask(f"traces/get?trace_id={info['trace_id']}", version="3.0")["trace"]["spans"])
            for info in infos
        ]

    def traces_of_run(self, experiment: str, run_id: str) -> set[str]:
        """The ids of the traces that are shown with a run."""
        place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
        body = {"locations": [place], "max_results": 500, "filter": f"attributes.run_id = '{run_id}'"}
        return {info["trace_id"] for info in self._ask("traces/search", body, version="3.0").get("traces", [])}

    def models(self, experiment: str = "0") -> list[dict[str, Any]]:
        """Every model of an experiment."""
        body = {"experiment_ids": [experiment], "max_results": 50}
        return list(self._ask("logged-models/search", body).get("models", []))

    def _ask(self, call: str, body: dict[str, Any] | None = None, *, version: str = "2.0") -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/api/{version}/mlflow/{call}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return dict(json.load(answer))


class Trace:
    """A trace, as the server tells it.

    Attributes:
        id: Its id.
        metadata: Its metadata.
        tags: Its tags.
        feedback: What was said about it, as (name, value), the later one twice if it was said twice.
        rationales: What was said beside that.
        spans: The attributes of its spans, by the span's name and in their order.
    """

    def __init__(self, info: dict[str, Any], spans: list[dict[str, Any]]) -> None:
        self.id = str(info["trace_id"])
        self.metadata: dict[str, str] = info.get("trace_metadata", {})
        self.tags: dict[str, str] = info.get("tags", {})
        self.feedback = sorted(
            (one["assessment_name"], one["feedback"].get("value")) for one in info.get("assessments", [])
        )
        self.rationales = [one.get("rationale") for one in info.get("assessments", [])]
        self.spans = [
            (span["name"], {item["key"]: _plain(item.get("value", {})) for item in span["attributes"]})
            for span in spans
        ]

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The attributes of the spans of LM calls."""
        return [attributes for _, attributes in self.spans if "mlflow.llm.model" in attributes]


def _plain(value: dict[str, Any]) -> Any:
    if "kvlist_value" in value:
        return {item["key"]: _plain(item.get("value", {})) for item in value["kvlist_value"].get("values", [])}
    return next(iter(value.values()), None)


class Run(dict[str, Any]):
    """A run, as the server tells it."""

    @property
    def id(self) -> str:
        return str(self["info"]["run_id"])

    @property
    def status(self) -> str:
        return str(self["info"]["status"])

    @property
    def metrics(self) -> dict[str, float]:
        return {m["key"]: m["value"] for m in self["data"].get("metrics", [])}

    @property
    def inputs(self) -> list[tuple[str, str, dict[str, str]]]:
        """The data sets that went in, as (name, digest, tags)."""
        return [
            (item["dataset"]["name"], item["dataset"]["digest"], {t["key"]: t["value"] for t in item.get("tags", [])})
            for item in self["inputs"].get("dataset_inputs", [])
        ]

    @property
    def tags(self) -> dict[str, str]:
        return {t["key"]: t["value"] for t in self["data"].get("tags", [])}

    @property
    def params(self) -> dict[str, str]:
        return {p["key"]: p["value"] for p in self["data"].get("params", [])}
