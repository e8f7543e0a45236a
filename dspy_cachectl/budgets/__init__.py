"""How much may be spent: budgets, and the requests that draw on them.

`budget` is what people write, `opened` counts what is spent of one, `prices` says what a request may come to, and
`sending` stands between DSPy and its engine: it lets a request go only where each budget that rules it allows it.
Import from its modules. It knows `stores`, where the counters of processes and machines are, and what lies below them.
"""
