"""Entries in Redis or Valkey, shared by processes and machines.

`store` is the store, `listing` what the commands see of it. Below them: `scripts` is what the server runs, `layout`
which keys there are and what is in them, `client` the way to the server over a `connection`, `commands` what it can be
asked, `circuit` whether a node of it is used at the moment, and `workers` are the threads that wait for it, so that a
caller waits no longer than it may.
"""
