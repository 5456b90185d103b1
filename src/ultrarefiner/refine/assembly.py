"""All settings of a refinement in one place, its presets, and the pipeline that they describe."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ultrarefiner.errors import ConfigError
from ultrarefiner.foundation import FoundationModel, Mirrored
from ultrarefiner.refine.gates import GateConfig, build_gate
from ultrarefiner.refine.localization import Localizer, LocalizerConfig
from ultrarefiner.refine.pipeline import RefinementPipeline
from ultrarefiner.refine.prompts import PromptConfig, PromptStage
from ultrarefiner.refine.roi import RoiConfig, build_roi
from ultrarefiner.refine.selection import SelectionConfig, build_selection
from ultrarefiner.refine.softening import SofteningConfig
from ultrarefiner.refine.stabilization import StabilizerConfig, build_stabilizer
from ultrarefiner.refine.verdict import Acceptance, NoAcceptance


@dataclass(frozen=True, kw_only=True)
class RefinerConfig:
    """Every setting of the refinement; the defaults are the measured best for a frozen model.

    Attributes:
        softening: hard mask to probability.
        localizer: probability to the lesion's place.
        roi: what the foundation model looks at.
        prompts: what it is asked.
        selection: weighing the model's answers.
        gate: how far the refined mask may move the coarse one.
        stabilizer: when to refuse.
        flips: also ask about the mirror image and take the mean of both answers; for prediction
            alone. A coarse network is then asked twice, too.
        second_opinion: share of the foundation model's own view, without a prompt, in the coarse
            map that ``predict`` and ``calibrate`` get from a network; for prediction alone, and for
            a model that has learned to segment unasked. A given mask stands as it is. By default 0.
    """

    softening: SofteningConfig = field(default_factory=SofteningConfig)
    localizer: LocalizerConfig = field(default_factory=LocalizerConfig)
    roi: RoiConfig = field(default_factory=RoiConfig)
    prompts: PromptConfig = field(default_factory=PromptConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    stabilizer: StabilizerConfig = field(default_factory=StabilizerConfig)
    flips: bool = False
    second_opinion: float | None = None

    def __post_init__(self) -> None:
        if self.second_opinion is not None and not 0 <= self.second_opinion <= 1:
            raise ConfigError(
                "refiner second_opinion", expected="0 to 1", found=str(self.second_opinion)
            )


PRESETS = {
    "default": RefinerConfig(),
    # The settings of the source document, sections 3.1-3.3, 6.3, 7.2 and 8.3, for a frozen model.
    "literal": RefinerConfig(
        softening=SofteningConfig(width=0.12),
        localizer=LocalizerConfig(
            box="statistics", margin=0.0, num_stds=2.5, floor=0.0, relative=0.0, temperature=1.0
        ),
        prompts=PromptConfig(
            jitter=0.0, foreground="centroid", background="literal", mask="gaussian"
        ),
        selection=SelectionConfig(kind="soft"),
        gate=GateConfig(kind="uncertainty", minimum=0.0, maximum=0.8),
        stabilizer=StabilizerConfig.literal(),
    ),
}
"""Settings by name; why each default differs from the literal one is said in the documentation."""


def build_pipeline(
    foundation: FoundationModel, config: RefinerConfig, acceptance: Acceptance | None = None
) -> RefinementPipeline:
    """Return the pipeline that a config describes.

    Args:
        foundation: the promptable model.
        config: settings of every stage.
        acceptance: the last stage, for prediction; training has none.
    """
    return RefinementPipeline(
        Mirrored(foundation) if config.flips else foundation,
        localizer=Localizer(config.localizer),
        roi=build_roi(config.roi),
        prompts=PromptStage(config.prompts),
        selection=build_selection(config.selection),
        gate=build_gate(config.gate),
        stabilizer=build_stabilizer(config.stabilizer),
        acceptance=acceptance or NoAcceptance(),
    )


def unasked(config: RefinerConfig) -> RefinerConfig:
    """Return settings for one look at the whole image whose answer is the outcome."""
    return replace(
        config,
        roi=RoiConfig(),
        prompts=replace(config.prompts, jitter=0.0),
        gate=GateConfig(kind="none"),
        stabilizer=replace(config.stabilizer, enabled=False),
    )


def grid_side(foundation: FoundationModel, config: RefinerConfig) -> int:
    """Return the side of the grid of coarse and final maps; finer where the model looks closer."""
    return 2 * foundation.mask_size if config.roi.crop else foundation.mask_size
