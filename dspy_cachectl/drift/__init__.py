"""Drift: a provider that answers as another model, or in another state of its servers, under an unchanged name.

`states` is what a passage through a phase has met, `history` what a store remembers of all of them. Import from its
modules. It knows `entries` and `stores`.
"""
