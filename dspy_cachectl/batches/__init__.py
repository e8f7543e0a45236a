"""Calls that are sent as batches, which providers answer within a day, for less.

`Batch` of `batch` says how they are waited for. A program is rehearsed under `Waves` of `waves`, which end it at a call
whose answer is still to be bought; `deliver` of `delivering` sends what was missed as batches (`lines`, `provider`) and
waits for them. What was sent is noted in the state folder (`notes`) before it is, so that another process goes on with
it, and a batch is not bought twice. `in_rounds` of `rounds` lets several evaluations wait at once.

It knows `calls`, which asks its `Waves` by the passage through the phase, and what is below.
"""
