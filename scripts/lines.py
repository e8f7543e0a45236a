"""Count code, and keep files and folders small: `python scripts/lines.py [--check]`.

A line of code is neither blank, nor a comment, nor part of a docstring. A statement is one of Python's, docstrings left
out, so that joining lines makes nothing smaller.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PARTS = ("dspy_cachectl", "tests")
MOST_LINES = 400
MOST_MODULES = 20

_NO_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


def docstrings(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the docstrings of a module and of everything in it."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and type(first.value.value) is str:
                yield first


def count(source: str) -> tuple[int, int]:
    """Return how many lines of code and how many statements a module has."""
    tree = ast.parse(source)
    documented = list(docstrings(tree))
    statements = sum(isinstance(node, ast.stmt) for node in ast.walk(tree)) - len(documented)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for text in documented:
        lines.difference_update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return len(lines), statements


def main(arguments: list[str]) -> int:
    """Print the counts by wing, or check the sizes: what is too large is named, and the exit code is 1."""
    root = Path(__file__).resolve().parents[1]
    code: Counter[str] = Counter()
    statements: Counter[str] = Counter()
    modules: Counter[Path] = Counter()
    too_large = []
    for path in sorted(path for part in PARTS for path in (root / part).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        place = path.relative_to(root)
        modules[place.parent] += 1
        if (length := source.count("\n")) > MOST_LINES:
            too_large.append(f"{place}: {length} lines, at most {MOST_LINES}")
        wing = str(Path(*place.parts[:2])) if len(place.parts) > 2 else place.parts[0]
        for name in {place.parts[0], wing} if wing != place.parts[0] else {f"{wing}/*.py", wing}:
            code[name] += (found := count(source))[0]
            statements[name] += found[1]
    too_large += [f"{place}: {n} modules, at most {MOST_MODULES}" for place, n in modules.items() if n > MOST_MODULES]
    if "--check" in arguments:
        print(*too_large, sep="\n", end="\n" if too_large else "")
        return int(bool(too_large))
    print(f"{'':<28}{'code':>8}{'statements':>12}")
    for name in sorted(code):
        print(f"{name:<28}{code[name]:>8,}{statements[name]:>12,}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
