"""Metrics of masks, one image at a time and summed up over patients."""

from ultrarefiner.metrics.cases import Case
from ultrarefiner.metrics.comparison import Comparison, Stratum, compare_methods
from ultrarefiner.metrics.masks import METRICS, MaskMetrics, evaluate_mask
from ultrarefiner.metrics.pairs import MetricTest, Pair, StudyPlan
from ultrarefiner.metrics.probabilities import ProbMetrics, evaluate_probs
from ultrarefiner.metrics.summary import (
    Counts,
    Evaluation,
    PairedSummary,
    Summary,
    compare_paired,
    evaluate_cases,
    summarise,
)

__all__ = [
    "METRICS",
    "Case",
    "Comparison",
    "Counts",
    "Evaluation",
    "MaskMetrics",
    "MetricTest",
    "Pair",
    "PairedSummary",
    "ProbMetrics",
    "Stratum",
    "StudyPlan",
    "Summary",
    "compare_methods",
    "compare_paired",
    "evaluate_cases",
    "evaluate_mask",
    "evaluate_probs",
    "summarise",
]
