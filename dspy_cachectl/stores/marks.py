"""By which marks entries are known again: an index in memory."""

from __future__ import annotations

from itertools import islice

from dspy_cachectl.stores.base import name_of

MOST_MARKS = 2
"""How many marks of one name are told: a name with two of them tells nothing, whichever they are."""


class Marks:
    """The marks of some keys, first kept first. Used under a lock."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}
        # Nearly all names are of one key, and a mapping for each of them would take more than all the rest.
        self._keys: dict[str, str | dict[str, dict[str, None]]] = {}

    def __len__(self) -> int:
        return len(self._marks)

    def add(self, key: str, mark: str) -> None:
        """Let a key have a mark, in place of what it had."""
        if self._marks.get(key) == mark:
            return
        self.remove(key)
        self._marks[key] = mark
        name = name_of(mark)
        of_name = self._keys.setdefault(name, key)
        if of_name is key:
            return
        if isinstance(of_name, str):
            of_name = self._keys[name] = {self._marks[of_name]: {of_name: None}}
        of_name.setdefault(mark, {})[key] = None

    def remove(self, key: str) -> None:
        """Take a key's mark away, where it has one."""
        mark = self._marks.pop(key, None)
        if mark is None:
            return
        name = name_of(mark)
        of_name = self._keys[name]
        if isinstance(of_name, dict):
            of_name[mark].pop(key)
            if not of_name[mark]:
                del of_name[mark]
        if isinstance(of_name, str) or not of_name:
            del self._keys[name]

    def remove_first(self) -> None:
        """Take away the mark of the key that has had its mark for longest."""
        self.remove(next(iter(self._marks)))

    def named(self, name: str) -> dict[str, str]:
        """Return the marks of a name, each with its first key; not more than tell something."""
        of_name = self._keys.get(name, {})
        if isinstance(of_name, str):
            return {self._marks[of_name]: of_name}
        return {mark: next(iter(keys)) for mark, keys in islice(of_name.items(), MOST_MARKS)}
