"""What calls may take: how many requests and tokens a minute, counted for all processes that share a store.

`rates` are the limits as values, `slots` is who goes when, as a store keeps it, `pacing` lets calls wait for it, and
`hooks` stand where DSPy sends a request.
Import from its modules. It knows the stores and what lies below, and nothing of phases and calls.
"""
