r"""Tables of a paper in LaTeX, to be read with ``\input``; they need the package booktabs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ultrarefiner.report.naming import digits_of, in_order, label_of

Content = Mapping[str, Any]
Rows = Sequence[Sequence[str]]

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "²": "$^2$",
    "−": "$-$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # at the start of a row it would be the length after the last one
    "*": "{*}",  # and this the star of that end of line
    "\n": " ",
    "\r": " ",
} | {character: f"\\{character}" for character in "&%$#_{}"}
_NONE = "--"


def metrics_table(comparison: Content) -> str:
    """Return one row per metric, one column per method, each mean with its interval.

    Missed lesions and false positives, which every mean contains, stand below.

    Args:
        comparison: JSON of :class:`ultrarefiner.metrics.Comparison`.
    """
    methods: list[str] = comparison["methods"]
    summaries = [comparison["summaries"][method] for method in methods]
    means = [
        [_label(name, comparison), *(_estimate(s["metrics"].get(name), name) for s in summaries)]
        for name in in_order(dict.fromkeys(n for s in summaries for n in s["metrics"]))
    ]
    counts = [
        [label, *(str(summary["counts"][kind]) for summary in summaries)]
        for kind, label in (("missed", "Missed"), ("false_positive", "False positive"))
    ]
    caption = rf"Mean and 95\,\% interval (BCa bootstrap over patients) of {_sample(comparison)}."
    return _table(["Metric", *map(escape, methods)], [means, counts], caption, label="metrics")


def differences_table(comparison: Content) -> str:
    """Return one row per pair of methods and tested metric, with effect sizes.

    Args:
        comparison: JSON of :class:`ultrarefiner.metrics.Comparison`.
    """
    blocks = [
        [
            [
                rf"{escape(pair['method'])} $-$ {escape(pair['reference'])}" if i == 0 else "",
                _label(name, comparison),
                _estimate(test["difference"], name, sign=True),
                p_value(test["p_permutation"]),
                p_value(test["p_permutation_holm"]),
                p_value(test["p_wilcoxon"]),
                _number(test["rank_biserial"], 2, sign=True),
                _number(test["standardised_mean"], 2, sign=True),
            ]
            for i, (name, test) in enumerate(
                (name, pair["tests"][name]) for name in in_order(pair["tests"])
            )
        ]
        for pair in comparison["pairs"]
    ]
    head = ["", "Metric", "Difference", "$p$", "Holm", "Wilcoxon", "$r$", "$d_z$"]
    caption = (
        rf"Paired differences over {_sample(comparison)}: mean with 95\,\% interval (BCa bootstrap "
        "over patients); $p$ of the sign-flip permutation of patients, the same after Holm over "
        "the whole table, and of Wilcoxon's test over images; matched-pairs rank-biserial "
        "correlation $r$; Cohen's $d_z$ of patient means."
    )
    return _table(head, blocks, caption, label="differences", num_names=2)


def strata_table(comparison: Content) -> str:
    """Return the DSC by stratum and method; empty if there are no strata.

    Args:
        comparison: JSON of :class:`ultrarefiner.metrics.Comparison`.
    """
    methods: list[str] = comparison["methods"]
    blocks = [
        [
            [
                escape(f"{kind}: {level}"),
                str(found["num_images"]),
                *(_estimate(found["summaries"][method].get("dsc"), "dsc") for method in methods),
            ]
            for level, found in levels.items()
        ]
        for kind, levels in comparison["strata"].items()
        if levels
    ]
    if not blocks:
        return ""
    caption = r"DSC by stratum: mean and 95\,\% interval (BCa bootstrap over patients)."
    return _table(["Stratum", "Images", *map(escape, methods)], blocks, caption, label="strata")


def escape(text: str) -> str:
    r"""Return text in which TeX's characters are only characters.

    Example:
        >>> escape("50 % of a_b")
        '50 \\% of a\\_b'
    """
    return "".join(_SPECIAL.get(character, character) for character in text)


def p_value(p: float | None) -> str:
    """Return a p-value as papers print it.

    Example:
        >>> p_value(0.00004), p_value(0.0312), p_value(None)
        ('$<$0.001', '0.031', '--')
    """
    if p is None:
        return _NONE
    return "$<$0.001" if p < 0.001 else f"{p:.3f}"


def _table(
    head: Sequence[str], blocks: Sequence[Rows], caption: str, *, label: str, num_names: int = 1
) -> str:
    """Return a table environment of finished cells; rules part the blocks.

    The first columns hold names, to the left; the others numbers, to the right.
    """
    columns = "l" * num_names + "r" * (len(head) - num_names)
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{caption}}}",
        f"\\label{{tab:{label}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        _line(head),
    ]
    for block in blocks:
        lines += ["\\midrule", *map(_line, block)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _label(metric: str, comparison: Content) -> str:
    return escape(label_of(metric, comparison["distance_unit"]))


def _estimate(estimate: Content | None, metric: str, *, sign: bool = False) -> str:
    if estimate is None:
        return _NONE
    ends = (estimate[part] for part in ("mean", "low", "high"))
    mean, low, high = (_number(end, digits_of(metric), sign=sign) for end in ends)
    return f"{mean} [{low}, {high}]"


def _number(value: float | None, digits: int, *, sign: bool = False) -> str:
    if value is None:
        return _NONE
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if not float(text):
        text = text.lstrip("+-")
    return f"${text}$" if text[0] in "+-" else text


def _sample(comparison: Content) -> str:
    return f"{comparison['num_images']} images of {comparison['num_patients']} patients"
