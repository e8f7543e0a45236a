"""The statistics of an evaluation: pure functions of scores, without DSPy, files or clocks.

A `ScoreTable` goes in; frozen values come out. Sources: Miller, "Adding Error Bars to Evals", arXiv 2411.00640,
and Bowyer et al., arXiv 2503.01747, for few questions; every function names its own. What scipy computes is its:
`pip install 'dspy-cachectl[stats]'`.

Import from its modules. It knows `errors` and nothing else of this package.
"""
