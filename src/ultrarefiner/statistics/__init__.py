"""Statistics of images that come in patients: intervals, shares and tests on plain arrays."""

from ultrarefiner.statistics.agreement import Bound, Limits, limits_of_agreement
from ultrarefiner.statistics.bca import bca_interval
from ultrarefiner.statistics.bootstrap import clustered_bootstrap
from ultrarefiner.statistics.estimates import Estimate, estimate_columns
from ultrarefiner.statistics.margins import Equivalence, equivalence
from ultrarefiner.statistics.mixed import MixedModel, random_intercept
from ultrarefiner.statistics.multiplicity import holm
from ultrarefiner.statistics.paired import (
    PairedTest,
    sign_test,
    signed_rank_test,
    standardised_mean,
)
from ultrarefiner.statistics.permutation import sign_flip_test
from ultrarefiner.statistics.planning import SampleSize, sample_size
from ultrarefiner.statistics.shares import Share, share_of, wilson_interval

__all__ = [
    "Bound",
    "Equivalence",
    "Estimate",
    "Limits",
    "MixedModel",
    "PairedTest",
    "SampleSize",
    "Share",
    "bca_interval",
    "clustered_bootstrap",
    "equivalence",
    "estimate_columns",
    "holm",
    "limits_of_agreement",
    "random_intercept",
    "sample_size",
    "share_of",
    "sign_flip_test",
    "sign_test",
    "signed_rank_test",
    "standardised_mean",
    "wilson_interval",
]
