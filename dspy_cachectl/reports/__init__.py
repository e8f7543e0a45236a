"""What an evaluation found: values first, then the words and the figures for them.

A `Measurement` is answers and the numbers that they come to; `EvalReport`, `Comparison` and `Comparisons` are what
people hold. Each makes its own sheet of plain rows, and `showing` shows sheets, whatever is on them. `texts` and
`progress_bar` are for everybody above: how counts and times are written, and how far along something is.

Import from its modules. It knows `statistics`, the rows of `predictions` and the names of what the ledger counts.
"""
