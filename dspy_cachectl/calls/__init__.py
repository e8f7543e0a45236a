"""One call on its way, from the LM to the store and back, and the one seam to DSPy.

A call goes through `lm` (what DSPy calls), `opening` (what the phase decides), `flight` (who else asks the same),
`cache` (what DSPy asks in between) and `call` (how it is counted). `installation` puts the cache in its place. Import
from its modules. It knows `context` and what lies below.
"""
