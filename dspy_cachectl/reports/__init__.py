"""What an evaluation found: values first, then words, tables, pictures and HTML made of them.

Import from its modules. It knows `statistics` and the rows of `predictions`.
"""
