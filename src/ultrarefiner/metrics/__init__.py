"""Metrics of masks, one image at a time and summed up over patients."""

from ultrarefiner.metrics.masks import METRICS, MaskMetrics, evaluate_mask
from ultrarefiner.metrics.summary import (
    Case,
    Counts,
    Estimate,
    Evaluation,
    PairedSummary,
    Share,
    Summary,
    clustered_bootstrap,
    compare_paired,
    evaluate_cases,
    summarise,
    wilson_interval,
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
