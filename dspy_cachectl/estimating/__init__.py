"""What an evaluation would cost, before anybody is asked.

`replayed` runs the program on what is stored and notes what is missing, `history` is what such calls and answers have
cost, `simulated` draws what is missing from it again and again, and `estimate` is the result. `asking` is what to
import.

It knows `evaluation` and what lies below.
"""
