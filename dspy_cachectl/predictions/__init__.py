"""Kept predictions: what was computed once is never computed again, and never served where it is stale.

`Library` is a folder of snapshots, and `Library.open` begins a `Session` for one evaluation. Import from the modules.
It knows `fingerprints`, `entries`, `stores` and the process state in `context`; DSPy is imported only by functions that
are given something of it.
"""
