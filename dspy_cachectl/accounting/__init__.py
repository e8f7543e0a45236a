"""What calls cost and where they are counted: the ledger, the use of a store, what is known of a run.

Import from its modules. It knows `stores` and `entries`.
"""
