"""Corrupt a true mask as networks do, and repeat it from what was recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ultrarefiner.data.corruption.config import CorruptionConfig
from ultrarefiner.data.corruption.kinds import KINDS
from ultrarefiner.data.corruption.lesion import Lesion
from ultrarefiner.data.corruption.softening import pixels_per_grid_px, soften
from ultrarefiner.errors import InputError
from ultrarefiner.shapes import Mask, ProbMap

_SEEDS = 2**32
_NOTHING_LEFT = ("empty", "scatter")  # nothing of the lesion is left for a second error


@dataclass(frozen=True, kw_only=True, eq=False)
class Corrupted:
    """A corrupted mask.

    Attributes:
        probs: ``H W`` in [0, 1]; 0 and 1 alone if it is hard. Above 0.5 is the corrupted mask.
        parameters: plain JSON from which :func:`replay` makes the same map. ``steps`` holds, for
            each error, its ``kind``, ``seed`` and drawn ``settings``, and the ``reached_ratio`` of
            the areas after and before it (null if there was none before); ``temperature_px`` the
            softening [px of the mask] or null; ``mask_sha256`` says which mask they belong to.
    """

    probs: ProbMap
    parameters: dict[str, Any]

    @property
    def kind(self) -> str:
        """The first, or only, type of error."""
        return str(self.parameters["steps"][0]["kind"])


def corrupt(
    mask: Mask, *, seed: int, index: int, config: CorruptionConfig | None = None
) -> Corrupted:
    """Corrupt a true mask; the result depends on nothing but the arguments.

    Args:
        mask: ``H W``, the image's whole extent and nothing else: false positives may come
            anywhere. Of a letterboxed mask give ``mask[:rows, :cols]`` (``content_hw``), so that
            the padding stays empty. An empty one can only gain false positives.
        seed: of the series, >= 0.
        index: which of the series, >= 0; each is independent of the others.
        config: which errors, default :class:`CorruptionConfig`.

    Example:
        >>> mask = np.zeros((64, 64), dtype=bool)
        >>> mask[20:40, 20:40] = True
        >>> done = corrupt(mask, seed=0, index=3)
        >>> bool((replay(mask, done.parameters) == done.probs).all())
        True
    """
    config = config or CorruptionConfig()
    rng = np.random.default_rng([seed, index])
    kind = _choose(rng, config.probabilities)
    steps = [_draw_step(rng, config, kind)]
    if rng.random() < config.secondary_probability and kind not in _NOTHING_LEFT:
        others = {
            name: share
            for name, share in config.probabilities.items()
            if KINDS[name].is_structural and name != kind and share > 0
        }
        if others:
            steps.append(_draw_step(rng, config, _choose(rng, others)))
    softness = (rng.random(), rng.uniform(*config.temperature_px))
    done, steps = _apply(mask, steps)
    temperature_px = None
    area_px = np.count_nonzero(done)
    if softness[0] < config.soft_probability and 0 < area_px < done.size:
        drawn_px = softness[1] * pixels_per_grid_px(mask)
        temperature_px = min(drawn_px, config.max_temperature * float(np.sqrt(area_px / np.pi)))
    parameters = {
        "steps": steps,
        "temperature_px": temperature_px,
        "mask_sha256": _mask_sha256(mask),
    }
    return Corrupted(probs=_finish(done, temperature_px), parameters=parameters)


def replay(mask: Mask, parameters: Mapping[str, Any]) -> ProbMap:
    """Make a corrupted mask again, byte for byte.

    Args:
        mask: the true mask that was corrupted.
        parameters: of :class:`Corrupted`, also after a way through JSON.

    Raises:
        InputError: the parameters are none, belong to another mask, or other area ratios come of
            them than did.
    """
    try:
        done, steps = _apply(mask, parameters["steps"])
        temperature_px, digest = parameters["temperature_px"], parameters["mask_sha256"]
        reached = [step["reached_ratio"] for step in parameters["steps"]]
    except (KeyError, TypeError, ValueError) as cause:
        raise InputError(
            "parameters of a corruption",
            expected="those that `corrupt` returned",
            found=f"no {cause}" if isinstance(cause, KeyError) else str(cause),
        ) from cause
    if digest != _mask_sha256(mask):
        raise InputError(
            "parameters of a corruption",
            expected=f"the mask that they belong to, of sha256 {digest}",
            found="another one",
            fix="Replay them on the mask they were drawn for, at the same size.",
        )
    found = [step["reached_ratio"] for step in steps]
    if found != reached:
        raise InputError(
            "parameters of a corruption",
            expected=f"area ratios {reached}",
            found=f"area ratios {found}",
            fix="Replay them with the version of UltraRefiner that drew them.",
        )
    return _finish(done, temperature_px)


def _choose(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    names, weights = list(shares), np.cumsum(list(shares.values()))
    # A share of 0 is never met: side="right" steps over what adds nothing.
    place = np.searchsorted(weights, rng.random() * weights[-1], side="right")
    return names[min(int(place), len(names) - 1)]


def _draw_step(rng: np.random.Generator, config: CorruptionConfig, kind: str) -> dict[str, Any]:
    settings = KINDS[kind].draw(rng, config)
    return {"kind": kind, "seed": int(rng.integers(_SEEDS)), "settings": settings}


def _apply(mask: Mask, steps: list[dict[str, Any]]) -> tuple[Mask, list[dict[str, Any]]]:
    """Return the corrupted mask, and the steps with the ratios that they reached."""
    applied = []
    for step in steps:
        lesion = Lesion(mask)
        rng = np.random.default_rng(step["seed"])
        mask = KINDS[step["kind"]].apply(lesion, step["settings"], rng)
        after_px = int(np.count_nonzero(mask))
        ratio = None if lesion.is_empty else after_px / lesion.area_px
        applied.append({**step, "reached_ratio": ratio})
    return mask, applied


def _finish(mask: Mask, temperature_px: float | None) -> ProbMap:
    return mask.astype(np.float32) if temperature_px is None else soften(mask, temperature_px)


def _mask_sha256(mask: Mask) -> str:
    """Return the first digits of a sha256 of size and pixels."""
    content = f"{mask.shape} ".encode() + np.packbits(mask).tobytes()
    return hashlib.sha256(content).hexdigest()[:16]
