"""What a database may consist of: plain tables, indexes of columns, and triggers that count or tidy up.

Whoever wrote the file may have put a view in the place of a table, with rows without end, or an expression in that of a
column: a file of some kilobytes then fills the memory of who reads it, or writes to it.
"""

from __future__ import annotations

import re
import sqlite3

_NAME = r"\"?\w+\"?"
_COLUMNS = rf"\(\s*{_NAME}(?:\s*,\s*{_NAME})*\s*\)"
_PLAIN = re.compile(
    # No expression: neither a function nor anything else that stands in parentheses.
    rf"CREATE TABLE {_NAME}\s*\([^()]*(?:PRIMARY KEY\s*{_COLUMNS}\s*)?\)(?:\s*WITHOUT ROWID)?\s*"
    rf"|CREATE (?:UNIQUE )?INDEX {_NAME} ON {_NAME}\s*{_COLUMNS}"
    rf"|CREATE TRIGGER {_NAME} (?:AFTER|BEFORE) (?:INSERT|DELETE|UPDATE) ON {_NAME} (?:FOR EACH ROW )?"
    # One that refuses does no harm.
    r"(?:WHEN [^()]*)?BEGIN (?:SELECT RAISE\(ABORT, '[^']*'\)|(?:UPDATE|DELETE)\b(?:(?!SELECT)[^;()|])*); END",
    re.IGNORECASE,
)


def strange_part(connection: sqlite3.Connection) -> str:
    """Return the name of something in a database that is none of these, or ""."""
    parts = connection.execute("SELECT CAST(name AS TEXT), CAST(sql AS TEXT) FROM sqlite_master WHERE sql IS NOT NULL")
    return next((str(name) for name, sql in parts if not _PLAIN.fullmatch(sql)), "")
