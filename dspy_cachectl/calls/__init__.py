"""One call on its way, from the LM to the store and back, and all that knows how DSPy makes one.

A call goes through `lm` (what DSPy calls), `opening` (what the phase decides), `flight` (who else asks the same),
`patches` (what makes DSPy's question carry the call), `cache` (what DSPy asks in between) and `account` (how it is
counted); `call` is what goes that way, and `miss` says why a replay ends there. `adapter` knows how DSPy makes a call,
`installation` puts the cache in its place. Import from its modules. It knows `context` and what lies below.
"""
