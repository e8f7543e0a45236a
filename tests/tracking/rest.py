"""A tracking server's REST API, read with plain HTTP: what the tests believe."""

from __future__ import annotations

import json
import urllib.request
from typing import Any


class Rest:
    """Reads one server."""

    def __init__(self, url: str) -> None:
        self.url = url

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
        found = self._ask(f"metrics/get-history?run_id={run_id}&metric_key={metric}")
        return [(int(m.get("step", 0)), m["value"], int(m["timestamp"])) for m in found.get("metrics", [])]

    def experiment(self, name: str) -> str:
        """The id of an experiment."""
        return str(self._ask(f"experiments/get-by-name?experiment_name={name}")["experiment"]["experiment_id"])

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
            f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{folder}/{path}", timeout=30
        ) as answer:
            return bytes(answer.read())

    def _ask(self, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/api/2.0/mlflow/{call}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))


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
