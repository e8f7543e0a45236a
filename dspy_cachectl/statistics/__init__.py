"""The statistics of an evaluation: pure functions of scores, without DSPy, files or clocks.

A `ScoreTable` goes in; frozen values come out. Sources: Miller, "Adding Error Bars to Evals", arXiv 2411.00640,
and Bowyer et al., arXiv 2503.01747, for few questions; every function names its own. What scipy and statsmodels
compute is theirs: `pip install 'dspy-cachectl[stats]'`.
"""

from dspy_cachectl.statistics.bootstrap import bootstrap_interval
from dspy_cachectl.statistics.estimates import Estimate, estimate
from dspy_cachectl.statistics.intervals import (
    Interval,
    effective_wilson_interval,
    equal_scores_interval,
    mean_interval,
    rule_of_three,
    t_interval,
    wilson_interval,
)
from dspy_cachectl.statistics.mcnemar import mid_p_mcnemar, tango_interval
from dspy_cachectl.statistics.multiplicity import benjamini_hochberg, holm, selection_bias
from dspy_cachectl.statistics.paired import PairedComparison, compare_paired, correlation, pair
from dspy_cachectl.statistics.power import (
    achieved_power,
    detectable_multiple,
    difference_variance,
    minimal_detectable_effect,
    questions_needed,
    repeats_needed,
    sample_size,
)
from dspy_cachectl.statistics.repeats import (
    DistinctDraws,
    consistency,
    distinct_draws,
    flip_rate,
    pass_at_k,
    pass_hat_k,
)
from dspy_cachectl.statistics.scores import QuestionScores, Score, ScoreTable
from dspy_cachectl.statistics.standard_errors import (
    StandardError,
    clustered_standard_error,
    standard_error,
    standard_error_of,
)
from dspy_cachectl.statistics.variance import Advice, Remedy, VarianceSplit, variance_split, within_variance
from dspy_cachectl.statistics.verdicts import Needed, Verdict, verdict_of

__all__ = [
    "Advice",
    "DistinctDraws",
    "Estimate",
    "Interval",
    "Needed",
    "PairedComparison",
    "QuestionScores",
    "Remedy",
    "Score",
    "ScoreTable",
    "StandardError",
    "VarianceSplit",
    "Verdict",
    "achieved_power",
    "benjamini_hochberg",
    "bootstrap_interval",
    "clustered_standard_error",
    "compare_paired",
    "consistency",
    "correlation",
    "detectable_multiple",
    "difference_variance",
    "distinct_draws",
    "effective_wilson_interval",
    "equal_scores_interval",
    "estimate",
    "flip_rate",
    "holm",
    "mean_interval",
    "mid_p_mcnemar",
    "minimal_detectable_effect",
    "pair",
    "pass_at_k",
    "pass_hat_k",
    "questions_needed",
    "repeats_needed",
    "rule_of_three",
    "sample_size",
    "selection_bias",
    "standard_error",
    "standard_error_of",
    "t_interval",
    "tango_interval",
    "variance_split",
    "verdict_of",
    "wilson_interval",
    "within_variance",
]
