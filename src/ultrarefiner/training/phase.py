"""What phases 2 and 3 do alike: judge, train, judge again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ultrarefiner.training.engine.fitting import Fitted, fit
from ultrarefiner.training.joint_module import JointModule
from ultrarefiner.training.judging import Judged, judge
from ultrarefiner.training.material import RefinementData
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.refiner_module import RefinerModule


@dataclass(frozen=True, kw_only=True)
class PhaseResult:
    """What a phase came to.

    Attributes:
        phase: 2 or 3.
        fitted: how the training went; epoch -1 if none was as good as the start, which is kept.
        before: on the inner validation.
        after: the same with the chosen weights; never worse.
        plan: what it depended on.
    """

    phase: int
    fitted: Fitted
    before: Judged
    after: Judged
    plan: Mapping[str, Any]


def train_phase(
    phase: int,
    module: RefinerModule | JointModule,
    data: RefinementData,
    *,
    folder: Path,
    plan: Mapping[str, Any],
    options: RunOptions,
) -> PhaseResult:
    """Train a module, which then holds the chosen weights, and say what it was worth.

    The start is a candidate like every epoch: where none is as good, training has only cost time.

    Args:
        phase: 2 or 3.
        module: trained in place.
        data: its loaders, with the images already read.
        folder: of the outer fold's run; the phase goes to ``folder/phaseN``.
        plan: JSON of all that must be the same for the phase to be resumed.
        options: how to carry it out.

    Raises:
        InputError: nothing to resume, or another plan; or loss or gradient are not finite.
    """
    start = {name: value.detach().clone() for name, value in module.state_dict().items()}
    before = judge(module, data.val_dataloader(), options)
    options.say(f"phase {phase}, before: {before.describe()}")
    fitted = fit(
        module,
        data,
        folder / f"phase{phase}",
        schedule=module.config,
        plan=plan,
        hardware=options.hardware,
        resume=options.resume,
        track=options.track,
    )
    after = judge(module, data.val_dataloader(), options)
    options.say(f"phase {phase}, after:  {after.describe()}; {fitted.describe()}")
    if after.dsc < before.dsc:
        options.say(f"phase {phase}: no epoch was as good as the start, which is kept")
        module.load_state_dict(start)
        fitted, after = replace(fitted, epoch=-1, val_dsc=before.dsc), before
    return PhaseResult(phase=phase, fitted=fitted, before=before, after=after, plan=plan)
