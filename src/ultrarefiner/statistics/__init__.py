"""Statistics of images that come in patients: intervals, shares and tests on plain arrays."""

from ultrarefiner.statistics.agreement import Bound, Limits, limits_of_agreement
from ultrarefiner.statistics.bca import bca_interval
from ultrarefiner.statistics.bootstrap import clustered_bootstrap
from ultrarefiner.statistics.drift import Drift, score_drift
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
from ultrarefiner.statistics.risk_control import (
    bentkus_p_value,
    binomial_p_value,
    conformal_risk_control,
    learn_then_test,
    p_value,
)
from ultrarefiner.statistics.selective import RiskCoverage, risk_coverage
from ultrarefiner.statistics.shares import Share, share_of, wilson_interval

__all__ = [
    "Bound",
    "Drift",
    "Equivalence",
    "Estimate",
    "Limits",
    "MixedModel",
    "PairedTest",
    "RiskCoverage",
    "SampleSize",
    "Share",
    "bca_interval",
    "bentkus_p_value",
    "binomial_p_value",
    "clustered_bootstrap",
    "conformal_risk_control",
    "equivalence",
    "estimate_columns",
    "holm",
    "learn_then_test",
    "limits_of_agreement",
    "p_value",
    "random_intercept",
    "risk_coverage",
    "sample_size",
    "score_drift",
    "share_of",
    "sign_flip_test",
    "sign_test",
    "signed_rank_test",
    "standardised_mean",
    "wilson_interval",
]
