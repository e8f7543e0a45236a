"""Parts of what an evaluation found that are looked at apart: slices of the questions, further metrics, changes.

Each part is a report of its own, made of the same answers. `slices` and `metrics` make them, `tables` shows them.
Import from its modules. They know `measurement`, and nobody who shows reports.
"""
