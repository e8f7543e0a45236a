"""Evaluation: a score with its error bar, from fresh draws, and nothing computed twice.

`evaluate` of `running` is what to import, and `last_report` of `last`. It knows every wing below but
`replay`, which stands beside it.
"""
