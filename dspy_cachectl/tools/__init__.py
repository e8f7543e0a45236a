"""Tools of agents, whose results are kept and served under the phase like an LM's answers.

`wrap` of `wrapping` is what to import: it takes an LM as well. `governed` is one call of a tool, and `outcomes` what is
kept of it: a result or an error, as plain data. Import from its modules. It knows `calls` and what lies below.
"""
