"""The picture of the system: one line per stage.

coarse -> (crop) -> prompts -> foundation -> selection -> (paste) -> gate -> stabilise
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ultrarefiner.foundation import FoundationModel
from ultrarefiner.refine.candidates import Proposals, propose
from ultrarefiner.refine.gates import Gate, apply_gate
from ultrarefiner.refine.prompts import BoxHypotheses, BoxPrompts
from ultrarefiner.refine.roi import RegionOfInterest, Scene
from ultrarefiner.refine.selection import QualitySelection, Selected
from ultrarefiner.refine.stabilization import Stabilized, Stabilizer
from ultrarefiner.shapes import Boxes, ProbMaps


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """Everything that happened to B lesions, stage by stage; :attr:`probs` is the answer."""

    coarse: ProbMaps
    roi: Boxes | None
    prompts: BoxHypotheses
    proposals: Proposals
    selected: Selected
    refined: ProbMaps
    gate: ProbMaps
    final: Stabilized

    @property
    def probs(self) -> ProbMaps:
        """Final probability, ``B 1 h w``."""
        return self.final.probs


class RefinementPipeline(nn.Module):
    """Refine coarse maps with a foundation model; the same object trains, predicts and serves.

    A stage that is switched off is an identity module, never a branch in here.
    """

    def __init__(
        self,
        foundation: FoundationModel,
        *,
        roi: RegionOfInterest,
        prompts: BoxPrompts,
        selection: QualitySelection,
        gate: Gate,
        stabilizer: Stabilizer,
    ):
        super().__init__()
        self.foundation = foundation
        self.roi = roi
        self.prompts = prompts
        self.selection = selection
        self.gate = gate
        self.stabilizer = stabilizer

    def forward(self, scene: Scene) -> Refinement:
        """Refine every coarse map of the scene."""
        coarse = scene.coarse
        view, roi = self.roi.crop(scene)
        prompts = self.prompts(view.coarse, view.grid_content_hw())
        proposals = propose(self.foundation, view, prompts)
        selected = self.selection(proposals, view)
        refined = self.roi.paste(selected.probs, coarse, roi)
        gate = self.gate(coarse, refined, scene)
        gated = apply_gate(coarse, refined, gate)
        final = self.stabilizer(coarse, refined, gated, selected.predicted_iou, prompts.no_lesion)
        return Refinement(
            coarse=coarse,
            roi=roi,
            prompts=prompts,
            proposals=proposals,
            selected=selected,
            refined=refined,
            gate=gate,
            final=final,
        )
