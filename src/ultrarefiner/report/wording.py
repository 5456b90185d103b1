"""Numbers to text as the page prints them: fixed decimals, a true minus, a dash for unknown."""

from __future__ import annotations

from collections.abc import Mapping

UNKNOWN = "–"

FEWEST_PATIENTS = 6
"""Of fewer, no permutation of patients gives p below 0.05 (2 / 2^5 = 0.0625), nor do intervals."""


def fixed(value: float | None, digits: int = 3) -> str:
    """Return a number with so many decimals.

    Example:
        >>> fixed(0.8125), fixed(-0.0001), fixed(None)
        ('0.812', '0.000', '–')
    """
    if value is None:
        return UNKNOWN
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def signed(value: float | None, digits: int = 3) -> str:
    """Return a change, with its sign unless it rounds to zero.

    Example:
        >>> signed(0.0621), signed(-0.01), signed(0.0)
        ('+0.062', '−0.010', '0.000')
    """
    text = fixed(value, digits)
    return f"+{text}" if value and value > 0 and float(text) else text


def percent(share: float | None, digits: int = 0) -> str:
    r"""Return a share of one in percent.

    Example:
        >>> percent(0.4321, 1)
        '43.2\xa0%'
    """
    return UNKNOWN if share is None else f"{fixed(100 * share, digits)}\xa0%"


def interval(estimate: Mapping[str, float], digits: int = 3, *, sign: bool = False) -> str:
    """Return the two ends of an estimate's interval, with their signs if it is of a change.

    Example:
        >>> interval({"low": -0.01, "high": 0.25}, 2, sign=True)
        '−0.01 to +0.25'
    """
    show = signed if sign else fixed
    return f"{show(estimate['low'], digits)} to {show(estimate['high'], digits)}"


def initial(text: str) -> str:
    """Return a text with a capital at its start, the rest as it is: names are not ours to change.

    Example:
        >>> initial("coarse of TransUNet")
        'Coarse of TransUNet'
    """
    return text[:1].upper() + text[1:]


def counted(num: int, noun: str) -> str:
    """Return a number of things in the singular or plural.

    Example:
        >>> counted(1, "image"), counted(2, "image")
        ('1 image', '2 images')
    """
    return f"{num} {noun}" if num == 1 else f"{num} {noun}s"


def p_value(p: float | None) -> str:
    """Return a p value as an equation or bound.

    Example:
        >>> p_value(0.0321), p_value(0.00002), p_value(None)
        ('= 0.032', '< 0.001', '–')
    """
    if p is None:
        return UNKNOWN
    return "< 0.001" if p < 0.001 else f"= {fixed(p)}"


def p_cell(p: float | None) -> str:
    """Return a p value as it stands in a table.

    Example:
        >>> p_cell(0.0321), p_cell(0.00002)
        ('0.032', '< 0.001')
    """
    return p_value(p).removeprefix("= ")
