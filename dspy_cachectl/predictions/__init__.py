"""The prediction cache: what was computed once is never computed again, and never served where it is stale."""

from __future__ import annotations

from dspy_cachectl.fingerprints.data import Unit, dataset_hash, example_key, hash_of_units, label_key, units
from dspy_cachectl.fingerprints.metrics import metric_fingerprint, metric_name
from dspy_cachectl.fingerprints.models import ModelIdentity, generation_config, model_identity
from dspy_cachectl.fingerprints.programs import Fingerprint, changed, program_fingerprint
from dspy_cachectl.predictions.keys import SnapshotKey
from dspy_cachectl.predictions.library import Library
from dspy_cachectl.predictions.outputs import Output, output_of, restore
from dspy_cachectl.predictions.rows import Failure, Row, Score, readable
from dspy_cachectl.predictions.session import Session
from dspy_cachectl.predictions.shelf import SnapshotInfo

__all__ = [
    "Failure",
    "Fingerprint",
    "Library",
    "ModelIdentity",
    "Output",
    "Row",
    "Score",
    "Session",
    "SnapshotInfo",
    "SnapshotKey",
    "Unit",
    "changed",
    "dataset_hash",
    "example_key",
    "generation_config",
    "hash_of_units",
    "label_key",
    "metric_fingerprint",
    "metric_name",
    "model_identity",
    "output_of",
    "program_fingerprint",
    "readable",
    "restore",
    "units",
]
