"""What must be said wherever a data set, or a network trained on it, is passed on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DataNotice:
    """Licence, citation and limits of a data set.

    Attributes:
        licence: what it allows and asks for.
        citation: the article to cite; empty if there is none.
        limits: of a network that has seen nothing else.
    """

    licence: str
    citation: str
    limits: str


NOTICES = {
    "BUS-BRA": DataNotice(
        licence="permissive (use, copy, modify, publish, distribute), on condition that every "
        "document that uses the data cites the article; provided as is, without warranty; "
        "copyright 2023 the authors",
        citation='W. Gómez-Flores, M. J. Gregorio-Calas, W. C. de Albuquerque Pereira, "BUS-BRA: '
        'A Breast Ultrasound Dataset for Assessing Computer-aided Diagnosis Systems", Medical '
        "Physics, 2024",
        limits="Trained on one data set of one country: images of other scanners, organs or "
        "presentations may fail, also badly. It finds a lesion in nearly every image, since every "
        "image it has seen holds one: do not use it to decide whether there is one",
    ),
    "phantom": DataNotice(
        licence="drawn by this package (`ultrarefiner data phantom`), Apache-2.0; no patient is in "
        "it, and there is nothing to cite",
        citation="",
        limits="Trained on drawn images: it has never seen a patient, and what it says of real "
        "images means nothing. For tests and demonstrations",
    ),
}
