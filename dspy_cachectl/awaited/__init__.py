"""Evaluations that are awaited, on the event loop of a notebook or a server.

`aevaluate` of `evaluating` is what to import. It asks `evaluation` in a thread, and knows every wing below but
`manage` and `settling`, which stand beside it.
"""
