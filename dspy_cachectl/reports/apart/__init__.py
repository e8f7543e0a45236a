"""Parts of what an evaluation found that are looked at apart: slices of the questions.

Each part is a report of its own, made of the same answers. Import from its modules. They know `measurement`, and nobody
who shows them.
"""
