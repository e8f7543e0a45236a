"""The blocks that people open: `phase`, as a context manager or a decorator, and `AutoPhase`.

Import from its modules. It knows `calls` and what lies below. Opening a phase puts the cache in place, so this stands
above `calls`; what a phase is while it lasts is in `context`.
"""
