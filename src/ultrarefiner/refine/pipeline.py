"""The picture: coarse -> prompts -> foundation -> selection -> gate -> stabilise -> accept."""

from __future__ import annotations

from torch import nn

from ultrarefiner.foundation import FoundationModel
from ultrarefiner.refine.candidates import propose
from ultrarefiner.refine.gates import Gate, apply_gate
from ultrarefiner.refine.localization import Localizer
from ultrarefiner.refine.prompts import PromptStage
from ultrarefiner.refine.refinement import Refinement
from ultrarefiner.refine.roi import RegionOfInterest
from ultrarefiner.refine.scene import Scene
from ultrarefiner.refine.selection import Selection
from ultrarefiner.refine.stabilization import NoStabilizer, Stabilizer
from ultrarefiner.refine.verdict import Acceptance, NoAcceptance


class RefinementPipeline(nn.Module):
    """Refine coarse maps; the same object trains, predicts and serves.

    A stage that is switched off is an identity module, never a branch in here.
    """

    def __init__(
        self,
        foundation: FoundationModel,
        *,
        localizer: Localizer,
        roi: RegionOfInterest,
        prompts: PromptStage,
        selection: Selection,
        gate: Gate,
        stabilizer: Stabilizer | NoStabilizer,
        acceptance: Acceptance | NoAcceptance,
    ):
        super().__init__()
        self.foundation, self.localizer, self.roi = foundation, localizer, roi
        self.prompts, self.selection = prompts, selection
        self.gate, self.stabilizer, self.acceptance = gate, stabilizer, acceptance

    def forward(self, scene: Scene) -> Refinement:
        """Refine every coarse map of the scene."""
        coarse, lesions = scene.coarse, self.localizer(scene)
        view = self.roi.look(scene, lesions, self.foundation)
        prompts = self.prompts(lesions, view)
        multimask = self.selection.multimask_output
        proposals = propose(self.foundation, view, prompts, multimask_output=multimask)
        selected = self.selection(proposals, view)
        refined = view.paste(selected.probs)
        gate = self.gate(coarse, refined, scene)
        gated = apply_gate(coarse, refined, gate)
        final = self.stabilizer(
            coarse, refined, gated, selected.predicted_iou, lesions.no_lesion, scene.content()
        )
        refinement = Refinement(
            scene=scene,
            lesions=lesions,
            view=view,
            prompts=prompts,
            proposals=proposals,
            selected=selected,
            refined=refined,
            gate=gate,
            final=final,
        )
        accepted: Refinement = self.acceptance(refinement)
        return accepted
