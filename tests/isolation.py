"""A process in which nothing was configured, called or counted: what DSPy and the package keep is taken back."""

from __future__ import annotations

import copy
import sys


def reset_cachectl() -> None:
    """Take back what the package keeps in this process, and read its configuration again."""
    # Who never imported a part of the package has nothing to reset in it, and must not pay for the import.
    installation, config = (sys.modules.get(f"dspy_cachectl.{part}") for part in ("calls.installation", "config"))
    if installation is not None:
        installation.reset()
    elif config is not None:
        config.reload()
    if held := sys.modules.get("dspy_cachectl.boundary.held"):
        held.HELD.forget()


def reset_dspy() -> None:
    """Take back what DSPy was told."""
    if "dspy" not in sys.modules:
        return
    import dspy

    settings = sys.modules["dspy.dsp.utils.settings"]
    settings.main_thread_config.clear()
    # A copy: the defaults hold lists.
    settings.main_thread_config.update(copy.deepcopy(settings.DEFAULT_CONFIG))
    settings.config_owner_thread_id = None
    settings.config_owner_async_task = None
    settings.thread_local_overrides.set(type(settings.DEFAULT_CONFIG)())
    with dspy._cache_lock:
        cache = vars(dspy).pop("cache", None)
    disk = getattr(cache, "disk_cache", None)
    if hasattr(disk, "close"):
        disk.close()


def start_anew() -> None:
    """Be a process whose environment has just been set, with the modules imported already."""
    reset_cachectl()
    if "dspy" in sys.modules:
        from dspy.clients import configure_cache
        from dspy.utils.caching import default_cache_dir

        switches, (_, *limits) = configure_cache.__defaults__[:2], configure_cache.__defaults__[2:]
        configure_cache.__defaults__ = (*switches, default_cache_dir(), *limits)
