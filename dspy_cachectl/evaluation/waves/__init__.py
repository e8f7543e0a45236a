"""Evaluations whose calls go by batches: the program is rehearsed in waves, and asked in earnest when all is there.

`opened_in_waves` of `rehearsing` is what to import. How a wave is sent, and waited for, is in the wing `batches`.
"""
