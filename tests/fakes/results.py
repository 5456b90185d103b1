"""Contents of result files, written by hand: a comparison, probabilities, a training log."""

from __future__ import annotations

import json
from pathlib import Path

SETTINGS = {
    "policy": "declared",
    "boundary": "pixel",
    "tolerance": 1.0,
    "tolerances": [],
    "delta": 0.02,
    "fold": None,
    "seed": 0,
}


def estimate(mean: float, reach: float) -> dict:
    return {"mean": mean, "low": mean - reach, "high": mean + reach, "median": mean}


def share(num: int, total: int) -> dict:
    part = num / total
    low, high = max(part - 0.1, 0), min(part + 0.1, 1)
    ends = {"low": low, "high": high, "clustered_low": low, "clustered_high": high}
    return {"num": num, "share": part, **ends}


def paired_test(mean: float, reach: float, **changes) -> dict:
    entry = {
        "difference": estimate(mean, reach),
        "p_permutation": 0.0004,
        "p_permutation_holm": 0.0012,
        "p_wilcoxon": 0.0003,
        "p_sign": 0.02,
        "rank_biserial": 0.71,
        "standardised_mean": 0.83,
        "mixed": {"mean": mean, "low": mean - reach, "high": mean + reach, "p": 0.001, "icc": 0.31},
        "equivalence": None,
    }
    return entry | changes


def summary(dsc: float, hd95: float, *, missed: int = 0) -> dict:
    metrics = {"dsc": estimate(dsc, 0.02), "nsd": estimate(dsc - 0.2, 0.03)}
    metrics["hd95"] = estimate(hd95, 1.5)
    return {
        "metrics": metrics,
        "counts": {"missed": missed, "false_positive": 0, "both_empty": 0},
    }


def pair(method: str, gain: float, reference: str = "coarse") -> dict:
    return {
        "method": method,
        "reference": reference,
        "improved": share(14, 24),
        "unchanged": share(7, 24),
        "harmed": share(3, 24),
        "tests": {
            "dsc": paired_test(gain, 0.03),
            "nsd": paired_test(gain, 0.05, p_permutation=0.03, p_permutation_holm=0.06),
            "hd95": paired_test(-40 * gain, 1.2),
        },
    }


def stratum(gains: dict[str, float], num_images: int, *, reach: float = 0.04) -> dict:
    return {
        "num_images": num_images,
        "num_patients": num_images - 1,
        "summaries": {"coarse": {"dsc": estimate(0.78, reach)}}
        | {method: {"dsc": estimate(0.78 + gain, reach)} for method, gain in gains.items()},
        "differences": {method: {"dsc": estimate(gain, reach)} for method, gain in gains.items()},
        "harmed": {method: share(1, num_images) for method in gains},
    }


def comparison(*methods: str) -> dict:
    """Return a comparison of methods with the coarse masks; ``refined`` alone if none is named."""
    gains = {method: 0.09 - 0.05 * i for i, method in enumerate(methods or ("refined",))}
    return {
        "methods": ["coarse", *gains],
        "reference": "coarse",
        "metrics": ["dsc", "nsd", "hd95"],
        "distance_unit": "px",
        "num_images": 24,
        "num_patients": 22,
        "delta": 0.02,
        "margin": None,
        "seed": 0,
        "summaries": {"coarse": summary(0.783, 14.2, missed=1)}
        | {method: summary(0.783 + gain, 9.1) for method, gain in gains.items()},
        "pairs": [pair(method, gain) for method, gain in gains.items()],
        "strata": {
            "size": {
                "smallest third": stratum(gains, 8, reach=0.11),
                "middle third": stratum(gains, 8),
                "largest third": stratum(gains, 8, reach=0.03),
            },
            "label": {"benign": stratum(gains, 14), "malignant": stratum(gains, 10)},
        },
        "sample_size": {
            "effect": 0.09,
            "num_patients": 11,
            "num_images": 12,
            "design_effect": 1.03,
        },
    }


def probabilities() -> dict:
    def bins(bend: float) -> list[dict]:
        return [
            {
                "low": i / 10,
                "high": (i + 1) / 10,
                "count": 0 if i == 4 else 1000 // (1 + min(i, 9 - i)),
                "confidence": None if i == 4 else (i + 0.5) / 10,
                "frequency": None if i == 4 else ((i + 0.5) / 10) ** bend,
            }
            for i in range(10)
        ]

    return {
        "coarse": {"brier": estimate(0.061, 0.01), "ece": 0.084, "bins": bins(1.9)},
        "refined": {"brier": estimate(0.034, 0.008), "ece": 0.021, "bins": bins(1.2)},
    }


def write_training(folder: Path, dsc: tuple[float, ...] = (0.3, 0.8, 0.7)) -> Path:
    """Write the files of a training run as Lightning's CSV logger and ``train`` leave them."""
    (folder / "log").mkdir(parents=True)
    lines = ["epoch,step,train_loss,val_dsc"]
    for epoch, value in enumerate(dsc):
        lines += [f"{epoch},{epoch},,{value}", f"{epoch},{epoch},{1 / (epoch + 1)},"]
    (folder / "log" / "metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    card = {
        "command": "ultrarefiner train",
        "recipe": {"phase1": {"epochs": len(dsc)}},
        "versions": {"ultrarefiner": "0.1.0"},
        "num_train": 20,
        "minutes": 1.5,
        "val_dsc": max(dsc),
    }
    (folder / "run.json").write_text(json.dumps(card), encoding="utf-8")
    return folder
