"""The blocks that people open: `phase`, as a context manager or a decorator, and `AutoPhase`.

Opening one puts the cache in place, so this stands above `calls`; what a phase is while it lasts is in `context`.
"""
