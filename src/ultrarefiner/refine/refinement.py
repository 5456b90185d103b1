"""What the pipeline returns: everything that happened, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ultrarefiner.refine.acceptance import Signs
from ultrarefiner.refine.candidates import Proposals
from ultrarefiner.refine.localization import Lesions
from ultrarefiner.refine.prompts import LesionPrompts
from ultrarefiner.refine.roi import View
from ultrarefiner.refine.scene import Scene
from ultrarefiner.refine.selection import Selected
from ultrarefiner.refine.stabilization import ACCEPTED, Stabilized, no_coarse_mask
from ultrarefiner.shapes import ProbMaps


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """The refinement of B lesions; :attr:`probs` is the answer.

    Attributes:
        scene: images and coarse maps.
        lesions: where the lesions are.
        view: what the model looked at.
        prompts: what the model was asked.
        proposals: what it answered.
        selected: the blend of its answers.
        refined: ``B 1 h w`` that blend on the coarse grid, before the gate.
        gate: ``B 1 h w`` how far each pixel may move.
        final: what the stabiliser and the acceptance rule left, and why.
        signs: what speaks against each lesion, ``None`` where the stabiliser refused it; empty
            where nothing was measured.
        scores: of each lesion's image by the acceptance rule; empty where there is none.
    """

    scene: Scene
    lesions: Lesions
    view: View
    prompts: LesionPrompts
    proposals: Proposals
    selected: Selected
    refined: ProbMaps
    gate: ProbMaps
    final: Stabilized
    signs: tuple[Signs | None, ...] = ()
    scores: tuple[float, ...] = ()

    @property
    def coarse(self) -> ProbMaps:
        """Coarse probability, ``B 1 h w``."""
        return self.scene.coarse

    @property
    def probs(self) -> ProbMaps:
        """Final probability, ``B 1 h w``."""
        return self.final.probs

    @property
    def applied_gate(self) -> ProbMaps:
        """How far each pixel did move, ``B 1 h w`` in [0, 1]: the gate where it had a say.

        1 where it was bypassed, since there was no coarse mask; 0 where the lesion was refused.
        """
        accepted = [reason == ACCEPTED for reason in self.final.reasons]
        bypassed = no_coarse_mask(self.coarse, self.lesions.no_lesion)
        gate = torch.where(bypassed[:, None, None, None], 1.0, self.gate.float())
        return gate * gate.new_tensor(accepted)[:, None, None, None]
