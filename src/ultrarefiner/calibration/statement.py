"""What a calibration guarantees and what not, in plain words."""

from __future__ import annotations

from ultrarefiner.calibration.rule import Calibration
from ultrarefiner.calibration.threshold import Delivery, Tried
from ultrarefiner.refine.acceptance import (
    CROSS_CONFORMAL,
    LEARN_THEN_TEST,
    MASKS,
    AcceptanceRule,
)

_LIMITS = (
    "This holds for these weights and settings alone, and for images of patients, devices and "
    "readers like those of the calibration; nothing is said of a single image, nor of how much "
    "worse a mask is made."
)
_GIVEN = (
    "The coarse masks were given: nobody can check whether who made them knew these patients, and "
    "it holds for masks made alike."
)
_CROSS = (
    "No patient was spare for all of these networks: each was measured on those held out from it, "
    "and the threshold was chosen on all of them together. So this is an estimate for networks "
    "trained like these, on average, and says nothing sure of this one."
)


_ONLY_IMAGES = (
    "Which patients the network was trained on is not known: only images could be compared, and it "
    "holds only if none of these patients was among them."
)


def state(rule: AcceptanceRule, *, num_without_patient: int = 0, only_images: bool = False) -> str:
    """Return the statement that a rule comes with.

    Args:
        rule: what was calibrated.
        num_without_patient: images that the manifest names no patient of.
        only_images: whether the network's card lists no patients.
    """
    sentences = [_head(rule)]
    if rule.method == CROSS_CONFORMAL:
        sentences.append(_CROSS)
    if rule.source == MASKS:
        sentences.append(_GIVEN)
    if num_without_patient:
        sentences.append(
            f"Images without a patient ({num_without_patient}) counted as patients of their own: "
            "not true if one person has several."
        )
    if only_images:
        sentences.append(_ONLY_IMAGES)
    return " ".join([*sentences, _LIMITS])


def refusal(calibration: Calibration) -> str:
    """Return why no rule is worth storing, and what would help.

    If the score knew images of whom few enough are made worse, more patients could show it.
    """
    rule, before, search = calibration.rule, calibration.before, calibration.search
    words = (
        f"no refinement can be trusted: of {before.patients} patients' images {_per_cent(before)} "
        f"are made worse by more than {rule.delta:g} DSC where all {before.images} are refined"
    )
    beyond = search.tried[search.chosen + 1 :]
    best = min(beyond, key=lambda tried: (tried.harmed_share / tried.coverage, -tried.coverage))
    if best.harmed_share > rule.alpha * best.coverage:
        return (
            f"{words}, and the score does not tell which; {rule.alpha:.1%} may be. Train the "
            "refiner on masks like these, or ask for more alpha or delta on other patients."
        )
    return (
        f"{words}, and {_per_cent(best)} where only {best.coverage:.1%} are; {rule.alpha:.1%} may "
        "be, but that takes more patients to show. Give more, or ask for more alpha on other "
        "patients."
    )


def _head(rule: AcceptanceRule) -> str:
    """Return the guarantee itself."""
    patients = f"{rule.num_patients} patients with {rule.num_images} images"
    whose = "the given" if rule.source == MASKS else "the network's own"
    bound = (
        f"at most {rule.alpha:.3g} of a patient's images, averaged over patients, are made worse "
        f"than {whose} coarse masks by more than {rule.delta:g} DSC"
    )
    if rule.method == CROSS_CONFORMAL:
        return f"To be expected, not guaranteed, by cross-validation on {patients}: {bound}."
    if rule.method == LEARN_THEN_TEST:
        return f"With confidence {1 - rule.eta:.3g} over the draw of {patients}, {bound}."
    return (
        f"In expectation over the draw of {patients} and of new ones, {bound}; for this one draw "
        "it can be more."
    )


def _per_cent(found: Delivery | Tried) -> str:
    return f"{found.harmed_share:.1%}"
