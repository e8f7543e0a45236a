"""Settings: from pyproject.toml, then the environment, then code; later over earlier.

There is one reader, for commands and package alike, and it loads nothing that takes long. `sources` reads what is
written and remembers where, `checks` says of a value what is wrong and what to write, `location` which folder is meant
and `shared` which server, and `current` holds what is in force. It knows `policy`, `boundary` and `errors`.
"""

from dspy_cachectl.config.checks import OFF, switched
from dspy_cachectl.config.current import (
    DEFAULT_PREDICTIONS,
    Settings,
    configure,
    on_change,
    reload,
    setting_now,
    settings,
    written_settings,
)
from dspy_cachectl.config.location import MEMORY, Stores, each_of, folder_of, normal_location
from dspy_cachectl.config.objects import is_objects, mirror_of, objects_of
from dspy_cachectl.config.shared import Shared, is_shared, shared_of

__all__ = [
    "DEFAULT_PREDICTIONS",
    "MEMORY",
    "OFF",
    "Settings",
    "Shared",
    "Stores",
    "configure",
    "each_of",
    "folder_of",
    "is_objects",
    "is_shared",
    "mirror_of",
    "normal_location",
    "objects_of",
    "on_change",
    "reload",
    "setting_now",
    "settings",
    "shared_of",
    "switched",
    "written_settings",
]
