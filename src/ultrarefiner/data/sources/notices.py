"""What must be said wherever a data set, or a network trained on it, is passed on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DataNotice:
    """Licence and citation of a data set.

    Attributes:
        licence: what it allows and asks for.
        citation: the article to cite.
    """

    licence: str
    citation: str


NOTICES = {
    "BUS-BRA": DataNotice(
        licence="permissive (use, copy, modify, publish, distribute), on condition that every "
        "document that uses the data cites the article; provided as is, without warranty; "
        "copyright 2023 the authors",
        citation='W. Gómez-Flores, M. J. Gregorio-Calas, W. C. de Albuquerque Pereira, "BUS-BRA: '
        'A Breast Ultrasound Dataset for Assessing Computer-aided Diagnosis Systems", Medical '
        "Physics, 2024",
    ),
}
