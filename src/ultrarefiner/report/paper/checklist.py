"""A checklist for authors, filled in with what the files say; the rest is marked as theirs.

The items are those of CLAIM 2024 (Tejani et al., Radiology: Artificial Intelligence 6,
https://doi.org/10.1148/ryai.240300), in our own short words, with the parts of MI-CLAIM (Norgeot et
al., Nature Medicine 26, https://doi.org/10.1038/s41591-020-1041-y) that ask for the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Content = Mapping[str, Any]

_OPEN = "**to be filled in by the authors**"
_ITEMS = (
    (1, "Title or abstract", "Says that it is a study of AI, and of which kind"),
    (2, "Title or abstract", "Structured summary of design, methods, results, conclusions"),
    (3, "Introduction", "Background, intended use and clinical role (MI-CLAIM 1)"),
    (4, "Introduction", "Aims and hypotheses (MI-CLAIM 1)"),
    (5, "Study design", "Prospective or retrospective"),
    (6, "Study design", "Goal of the study"),
    (7, "Data", "Sources of the data (MI-CLAIM 2)"),
    (8, "Data", "Inclusion and exclusion (MI-CLAIM 1)"),
    (9, "Data", "Preprocessing (MI-CLAIM 2)"),
    (10, "Data", "Selection of parts of the data"),
    (11, "Data", "De-identification"),
    (12, "Data", "Missing data"),
    (13, "Data", "How images were acquired"),
    (14, "Reference standard", "How it is defined"),
    (15, "Reference standard", "Why it was chosen"),
    (16, "Reference standard", "Who annotated, and how"),
    (17, "Reference standard", "Annotation of the test set"),
    (18, "Reference standard", "Variability between and within annotators"),
    (19, "Data partitions", "How data were assigned (MI-CLAIM 2)"),
    (20, "Data partitions", "Level at which partitions are disjoint (MI-CLAIM 2)"),
    (21, "Testing data", "Intended sample size"),
    (22, "Model", "Description with inputs, outputs, layers (MI-CLAIM 3)"),
    (23, "Model", "Software with versions (MI-CLAIM 3, 6)"),
    (24, "Model", "Initial weights"),
    (25, "Training", "Training in full detail (MI-CLAIM 3)"),
    (26, "Training", "How the final model was chosen (MI-CLAIM 3)"),
    (27, "Training", "Ensembles"),
    (28, "Evaluation", "Metrics (MI-CLAIM 4)"),
    (29, "Evaluation", "Statistics: significance and uncertainty (MI-CLAIM 4)"),
    (30, "Evaluation", "Robustness and sensitivity (MI-CLAIM 5)"),
    (31, "Evaluation", "Explainability (MI-CLAIM 5)"),
    (32, "Evaluation", "Evaluation on internal data"),
    (33, "Evaluation", "Testing on external data"),
    (34, "Evaluation", "Registration of a trial"),
    (35, "Results", "Patients and images included and excluded"),
    (36, "Results", "Characteristics of the patients by partition (MI-CLAIM 1)"),
    (37, "Results", "Performance with uncertainty (MI-CLAIM 4)"),
    (38, "Results", "Precision of the estimates, subgroups"),
    (39, "Results", "Analysis of failures (MI-CLAIM 5)"),
    (40, "Discussion", "Limitations"),
    (41, "Discussion", "What it means in practice"),
    (42, "Other", "Protocol and further technical detail"),
    (43, "Other", "Where software, model and data are (MI-CLAIM 6)"),
    (44, "Other", "Funding and the role of funders"),
)


def fill_checklist(evaluation: Content, comparison: Content, run: Content | None) -> str:
    """Return the checklist as Markdown.

    Args:
        evaluation: content of ``eval.json``.
        comparison: JSON of :class:`ultrarefiner.metrics.Comparison`.
        run: content of the run's ``run.json``, if there is one.

    Returns:
        One row per item; what the files cannot know is marked as open.
    """
    known = _known(evaluation, comparison, run or {})
    lines = [
        "# Checklist for the manuscript (CLAIM 2024, with MI-CLAIM)",
        "",
        f"Filled in from the files of the evaluation where they tell: {len(known)} of "
        f"{len(_ITEMS)} items, each to be checked. The others are open.",
        "",
        "| no. | section | item | answer |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {number} | {section} | {item} | {known.get(number, _OPEN)} |"
        for number, section, item in _ITEMS
    ]
    return "\n".join([*lines, ""])


def _known(evaluation: Content, comparison: Content, run: Content) -> dict[int, str]:
    """Return what the files say, by item."""
    settings = evaluation.get("settings") or {}
    versions = (run.get("versions") or {}) | (evaluation.get("versions") or {})
    known = {
        9: _preprocessing(run),
        12: f"Empty masks count by policy `{settings['policy']}`." if settings else "",
        19: _partition(settings, evaluation),
        23: ", ".join(f"{name} {number}" for name, number in sorted(versions.items())),
        24: f"Weights `{run['checkpoint']}`." if run.get("checkpoint") else "",
        28: _metrics(settings, comparison),
        29: _statistics(comparison),
        35: _sample(evaluation),
        37: _performance(comparison),
        38: _subgroups(comparison),
        39: _failures(comparison),
    }
    return {number: _cell(text) for number, text in known.items() if text}


def _cell(text: str) -> str:
    """Return a text that cannot leave its cell of the table."""
    return " ".join(text.split()).replace("|", "\\|")


def _preprocessing(run: Content) -> str:
    return "Settings of every stage: `config` in `run.json`." if run.get("config") else ""


def _partition(settings: Content, evaluation: Content) -> str:
    fold = settings.get("fold")
    digest = evaluation.get("manifest_sha256")
    where = f"Fold {fold} of the manifest was evaluated." if fold not in (None, "") else ""
    return " ".join(filter(None, [where, f"Manifest sha256 `{digest}`." if digest else ""]))


def _metrics(settings: Content, comparison: Content) -> str:
    names = ", ".join(comparison["metrics"])
    if not settings:
        return f"{names}."
    return (
        f"{names}; distances in {comparison['distance_unit']}, boundary by {settings['boundary']}, "
        f"NSD at {settings['tolerance']:g} {comparison['distance_unit']}."
    )


def _statistics(comparison: Content) -> str:
    return (
        "95 % intervals by BCa bootstrap over patients; sign-flip permutation of patients, Holm "
        "over all tests; beside them Wilcoxon and sign tests over images with effect sizes, and a "
        f"mixed model with an intercept per patient (seed {comparison['seed']})."
    )


def _sample(evaluation: Content) -> str:
    failed = len(evaluation.get("failures") or [])
    return (
        f"{evaluation['num_images']} images of {evaluation['num_patients']} patients were scored; "
        f"{failed} could not be."
    )


def _performance(comparison: Content) -> str:
    means = [
        f"{method}: DSC {summary['metrics']['dsc']['mean']:.3f} "
        f"[{summary['metrics']['dsc']['low']:.3f}, {summary['metrics']['dsc']['high']:.3f}]"
        for method, summary in comparison["summaries"].items()
        if "dsc" in summary["metrics"]
    ]
    return "; ".join(means) + ". All metrics: `metrics.csv`." if means else ""


def _subgroups(comparison: Content) -> str:
    kinds = ", ".join(kind for kind, levels in comparison["strata"].items() if levels)
    return f"By {kinds}: `strata.csv`." if kinds else ""


def _failures(comparison: Content) -> str:
    parts = [
        f"{method}: {summary['counts']['missed']} missed, "
        f"{summary['counts']['false_positive']} false positive"
        for method, summary in comparison["summaries"].items()
    ]
    parts += [
        f"{pair['method']} against {pair['reference']}: {pair['harmed']['num']} images lost more "
        f"than {comparison['delta']:g} DSC"
        for pair in comparison["pairs"]
    ]
    return "; ".join(parts) + ". Every image: `cases.csv`."
