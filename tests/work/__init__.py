"""How the work grows with what is asked: counted, and not timed."""
