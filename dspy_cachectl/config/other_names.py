"""What others call what can be set here: each of these names is answered with ours."""

from __future__ import annotations

_SWITCHES = ("use_prediction_cache", "use_predictions_cache", "prediction_cache", "predictions_cache")
_FOLDERS = ("cache_predictions_dir", "predictions_cache_dir", "prediction_cache_dir", "predictions_dir")
_DAYS = ("cache_max_age_days", "predictions_max_age_days", "max_age_days", "cache_max_age")
_COMPRESSED = ("compress_predictions", "cache_compress", "compress_cache", "compress")

SETTINGS = {
    **dict.fromkeys(_SWITCHES, ("predictions", '"on", "off", or a folder')),
    **dict.fromkeys(_FOLDERS, ("predictions", "a folder")),
    **dict.fromkeys((*_DAYS, "max_age"), ("predictions_max_age", "in seconds: 86400 for a day")),
    **dict.fromkeys(_COMPRESSED, ("predictions_compress", "true or false")),
}
"""By such a name: the setting, and what it takes."""

ARGUMENTS = {
    **dict.fromkeys(_SWITCHES, ("predictions=", "True, False, or a folder")),
    **dict.fromkeys(_FOLDERS, ("predictions=", "a folder")),
    **dict.fromkeys((*_DAYS, "predictions_max_age"), ("max_age=", "in seconds: 86400 for a day")),
    **dict.fromkeys((*_COMPRESSED, "predictions_compress"), ("the setting predictions_compress", "true or false")),
}
"""Likewise for the arguments of `evaluate()`."""
