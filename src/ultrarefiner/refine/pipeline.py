"""The picture of the system: coarse -> prompts -> foundation -> selection -> gate -> stabilise."""

from __future__ import annotations

from torch import nn

from ultrarefiner.foundation import FoundationModel
from ultrarefiner.refine.candidates import propose
from ultrarefiner.refine.gates import Gate, apply_gate
from ultrarefiner.refine.prompts import BoxPrompts
from ultrarefiner.refine.refinement import Refinement
from ultrarefiner.refine.roi import RegionOfInterest, Scene
from ultrarefiner.refine.selection import QualitySelection
from ultrarefiner.refine.stabilization import Stabilizer


class RefinementPipeline(nn.Module):
    """Refine coarse maps; the same object trains, predicts and serves.

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
        self.foundation, self.roi, self.prompts = foundation, roi, prompts
        self.selection, self.gate, self.stabilizer = selection, gate, stabilizer

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
