"""Evaluation: a score with its error bar, from fresh draws, and nothing computed twice.

`evaluate` of `running` is the one thing to import. It knows every wing below but `replay`, which stands beside it.
"""
