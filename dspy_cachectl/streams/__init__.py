"""Streams: a stored answer in pieces, as a provider would have sent it, for the listeners of a streamed program.

`sending` puts them where DSPy's listeners read, `pieces` cuts them. `calls` puts that in place. It knows `context` and
what lies below.
"""
