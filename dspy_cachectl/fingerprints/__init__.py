"""What decides an answer, as a hash: programs, models, metrics, data.

The same object has the same fingerprint in every process. Import from its modules. It knows `entries`, and DSPy only by
name: nothing here imports it before it is given something of it.
"""
