"""What is promised: how many images may be made worse, by how much, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.refine.acceptance import CONFORMAL, LEARN_THEN_TEST
from ultrarefiner.statistics import binomial_p_value

CHOICES = (LEARN_THEN_TEST, CONFORMAL)
"""Methods that can be asked for; what ``--cross`` makes of the latter is no promise."""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """Settings of a calibration.

    Attributes:
        alpha: largest patient-averaged share of images made worse, in (0, 1).
        delta: fall of the DSC from which on an image counts as made worse, in [0, 1).
        eta: 1 - confidence, in (0, 1); plays no part in conformal risk control.
        method: ``learn-then-test``, which bounds the share with that confidence, or
            ``conformal-risk-control``, which bounds its expectation.
        learn_share: share of the patients to learn the score on, in (0, 1); the threshold is chosen
            on the others.
        seed: of the draw of these patients.
    """

    alpha: float = 0.05
    delta: float = 0.02
    eta: float = 0.05
    method: str = LEARN_THEN_TEST
    learn_share: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("alpha", "eta", "learn_share"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(
                    name, expected="a value between 0 and 1", found=f"{getattr(self, name)}"
                )
        if not 0 <= self.delta < 1:
            raise ConfigError("delta", expected="a DSC in [0, 1)", found=f"{self.delta}")
        if self.method not in CHOICES:
            raise ConfigError("method", expected=" or ".join(CHOICES), found=repr(self.method))

    @property
    def is_expected_only(self) -> bool:
        """Whether only the expectation of the share is bounded."""
        return self.method == CONFORMAL

    @property
    def fewest_patients(self) -> int:
        r"""Fewest patients of whom anything can be said, even if none is made worse.

        Learn-then-test needs :math:`(1 - \alpha)^n \le \eta`, conformal risk control
        :math:`1 / (n + 1) \le \alpha`.

        Example:
            >>> Promise(alpha=0.05, eta=0.05).fewest_patients
            59
            >>> Promise(alpha=0.05, method="conformal-risk-control").fewest_patients
            19
        """
        if self.is_expected_only:
            guess = 1 / self.alpha - 1
        else:
            guess = math.log(self.eta) / math.log1p(-self.alpha)
        num = max(1, math.floor(guess))
        while not self._passes_without_loss(num):  # as the test is computed, rounding and all
            num += 1
        return num

    def _passes_without_loss(self, num: int) -> bool:
        if self.is_expected_only:
            return 1 / (num + 1) <= self.alpha
        return binomial_p_value(0, num, self.alpha) <= self.eta

    def check_patients(self, num: int, *, learn_share: float | None = None) -> None:
        """Make sure that there are enough patients to choose a threshold on.

        Args:
            num: patients to choose it on.
            learn_share: of all patients, taken away before; for the message.

        Raises:
            InputError: there are fewer; says how many are needed.
        """
        fewest = self.fewest_patients
        if num >= fewest:
            return
        share = self.learn_share if learn_share is None else learn_share
        in_all = math.ceil(fewest / (1 - share))
        beside = f", so about {in_all} with those to learn the score on" if share else ""
        ways = "a larger alpha" + ("" if self.is_expected_only else " or eta")
        raise InputError(
            f"too few patients for alpha {self.alpha:g}"
            + ("" if self.is_expected_only else f" and eta {self.eta:g}"),
            expected=f"at least {fewest} to choose the threshold on{beside}",
            found=f"{num}",
            fix=f"Give more patients, or ask for {ways}: of {num}, even without a single harmed "
            "image, nothing follows.",
        )
