"""Metrics and programs of the user's, made of a text: what an editor would have changed is another text."""

from __future__ import annotations

import itertools
import linecache
import re
import sys
import types
from typing import Any

import pytest

HEAD = """
import collections, contextvars, dataclasses, enum, fractions, functools, heapq, importlib, itertools, operator, random
import string, threading, types, typing
import dspy, numpy, pydantic
"""
_numbers = itertools.count()


def made(source: str, value: str, monkeypatch: pytest.MonkeyPatch, name: str = "edited") -> Any:
    """Return a module of the user's with `V` in its source replaced; `helpers` beside it holds the value, too."""
    loaded = {}
    texts = {"helpers": f"{HEAD}W = {value}\ndef score(text):\n    return {value}\n", name: HEAD + source}
    for each, text in texts.items():
        module = types.ModuleType(each)
        module.__file__ = f"/nowhere/{each}.py"
        monkeypatch.setitem(sys.modules, each, module)
        written = re.sub(r"\bV\b", lambda _: value, text)
        path = f"<{each} {next(_numbers)}>"
        linecache.cache[path] = (len(written), None, written.splitlines(keepends=True), path)
        exec(compile(written, path, "exec"), vars(module))
        loaded[each] = module
    return loaded[name]
