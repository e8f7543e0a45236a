"""A Python that has imported what takes long, and runs each program in a fork of itself. A script for `processes`.

Its arguments are the modules to import, its standard input is a socket. A request is one line of JSON, `{"arguments":
[...], "cwd": ..., "env": {...}}`, with four descriptors: the program's three streams, and one that is told the
program's process id and then its exit code, each on a line. It ends when the socket is closed.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import socket
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

_DESCRIPTORS = 4
_LENGTH = 1 << 20


def _named_path() -> list[str]:
    return [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]


_SYSTEM_PATH = sys.path[1 + len(_named_path()) :]
"""Without the folder of this script, and without what was named for it."""


def main() -> Callable[[], None] | None:
    """Serve until the socket is closed. What is returned is to be run, in the process of a program."""
    atexit.register(_leave)  # before all that is imported registers its own: it comes last
    for name in sys.argv[1:]:
        importlib.import_module(name)
    control = socket.socket(fileno=0)
    gc.collect()
    gc.freeze()  # the forks need not search and copy what was imported
    while received := _receive(control):
        asked, descriptors = received
        if os.fork() == 0 and (program := _fork_program(asked, descriptors)):
            control.detach()  # its descriptor is the program's standard input now
            return program
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
    return None


def _receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    data, descriptors, _, _ = socket.recv_fds(control, _LENGTH, _DESCRIPTORS)
    while data and not data.endswith(b"\n"):
        data += control.recv(_LENGTH)
    return (json.loads(data), descriptors) if data else None


def _fork_program(asked: dict[str, Any], descriptors: list[int]) -> Callable[[], None]:
    """Fork once more, and watch over the fork: only a parent learns of its end."""
    *streams, told = descriptors
    process_id = os.fork()
    if process_id == 0:
        os.close(told)
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
            os.close(descriptor)
        return lambda: _run(asked)
    for descriptor in (0, *streams):
        os.close(descriptor)
    os.write(told, b"%d\n" % process_id)
    _, status = os.waitpid(process_id, 0)
    os.write(told, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


_exit_codes: list[int] = []


def _leave() -> None:
    """End a program that has ended: to free what was imported would copy all of it first."""
    if _exit_codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_exit_codes[0])


def _run(asked: dict[str, Any]) -> None:
    """Be the Python that was asked for."""
    try:
        _run_program(asked)
        _exit_codes.append(0)
    except SystemExit as end:
        _exit_codes.append(0 if end.code is None else end.code if isinstance(end.code, int) else 1)
        raise
    except Exception:
        _exit_codes.append(1)
        raise


def _run_program(asked: dict[str, Any]) -> None:
    os.setsid()
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    _start_anew()
    first, *sys.argv = asked["arguments"]
    path = [*_named_path(), *_SYSTEM_PATH]
    if first == "-m":
        sys.path[:] = [str(Path.cwd()), *path]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path[:] = ["", *path]
        source, sys.argv[0] = sys.argv[0], "-c"
        _execute(source, "<string>")
    else:
        sys.path[:] = [os.path.dirname(os.path.abspath(first)), *path]  # noqa: PTH120, PTH100 - as Python says it
        sys.argv.insert(0, first)
        with open(first, encoding="utf-8") as file:  # noqa: PTH123
            source = file.read()
        _execute(source, first)


def _start_anew() -> None:
    """Take back what was looked up when the modules were imported."""
    importlib.invalidate_caches()
    tempfile.tempdir = None
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    if "tests.isolation" in sys.modules:
        sys.modules["tests.isolation"].start_anew()


def _execute(source: str, file: str) -> None:
    main_module = types.ModuleType("__main__")
    if file != "<string>":
        main_module.__file__ = file
    sys.modules["__main__"] = main_module
    exec(compile(source, file, "exec"), vars(main_module))


if __name__ == "__main__" and (run := main()):
    run()
