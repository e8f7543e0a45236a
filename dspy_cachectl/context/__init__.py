"""What rules where this code runs: the phase, the unit, the evaluation, the open cassette, and the process's own state.

Import from its modules. It knows `accounting` and `entries`; calls ask it, and nothing here asks a call.
"""
