"""A gate: whether a candidate's report lets a change pass, given the baseline's. Nothing is asked for it.

`gate` of `gate` is what to import. It knows `reports` and what is below them.
"""
