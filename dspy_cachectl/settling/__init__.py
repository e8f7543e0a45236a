"""Evaluations that are asked until a decision is made, and no longer: of two programs, or of many.

`settle` of `two` is what to import, and `race` of `racing`. A look is a paired comparison with the level that keeps the
error of all looks (`statistics.looks`); what is asked between two looks is a piece of an evaluation
(`evaluation.growing`).

It knows every wing below but `manage`, which stands beside it.
"""
