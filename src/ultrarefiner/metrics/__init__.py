"""Metrics of masks, one image at a time and summed up over patients."""

from ultrarefiner.metrics.intervals import (
    Estimate,
    Share,
    clustered_bootstrap,
    wilson_interval,
)
from ultrarefiner.metrics.masks import METRICS, MaskMetrics, evaluate_mask
from ultrarefiner.metrics.summary import (
    Case,
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
    "Counts",
    "Estimate",
    "Evaluation",
    "MaskMetrics",
    "PairedSummary",
    "Share",
    "Summary",
    "clustered_bootstrap",
    "compare_paired",
    "evaluate_cases",
    "evaluate_mask",
    "summarise",
    "wilson_interval",
]
