"""What rules where this code runs: the phase, the unit, the evaluation, the open cassette, and the process's own state.

Import from its modules. It knows `accounting`, `entries`, `config` and `policy`; calls ask it, and it asks no call.
"""
