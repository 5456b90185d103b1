"""What the pipeline returns: everything that happened, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass

from ultrarefiner.refine.candidates import Proposals
from ultrarefiner.refine.prompts import BoxHypotheses
from ultrarefiner.refine.selection import Selected
from ultrarefiner.refine.stabilization import Stabilized
from ultrarefiner.shapes import Boxes, ProbMaps


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """The refinement of B lesions; :attr:`probs` is the answer.

    Attributes:
        coarse: ``B 1 h w`` coarse probability.
        roi: ``B 4`` what the model looked at, or ``None`` for the whole frame.
        prompts: what the model was asked.
        proposals: what it answered.
        selected: the blend of its answers.
        refined: ``B 1 h w`` that blend on the coarse grid, before the gate.
        gate: ``B 1 h w`` how far each pixel may move.
        final: what the stabiliser left, and why.
    """

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
