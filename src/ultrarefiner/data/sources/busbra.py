"""BUS-BRA: breast ultrasound of 1064 patients with biopsy, BI-RADS and official folds.

Gomez-Flores, Gregorio-Calas, de Albuquerque Pereira, "BUS-BRA: A breast ultrasound dataset for
assessing computer-aided diagnosis systems", Medical Physics 51 (2024). The licence allows use and
redistribution; every document that uses the data must cite the article.
"""

from __future__ import annotations

import csv
from pathlib import Path

from ultrarefiner.data.manifest import Record
from ultrarefiner.data.sources.source import SOURCES, Found
from ultrarefiner.errors import InputError


@SOURCES.register("busbra")
def import_busbra(src: Path) -> Found:
    """Read the original layout as :func:`read_busbra` does."""
    return Found(records=read_busbra(src))


def read_busbra(root: Path) -> tuple[Record, ...]:
    """Read the original layout: ``Images/bus_*.png``, ``Masks/mask_*.png``, two CSV files.

    Args:
        root: folder that holds ``bus_data.csv`` and ``5-fold-cv.csv``.

    Returns:
        One record per image that is there (parts of the set are allowed), sorted by name, with
        patient, pathology, official fold, and BI-RADS category and device where the table has them.

    Raises:
        InputError: a table is missing, or no image is there.
    """
    cases = {row["ID"]: row for row in _table(root / "bus_data.csv", "ID", "Case", "Pathology")}
    records = []
    for row in sorted(_table(root / "5-fold-cv.csv", "ID", "kFold"), key=lambda row: row["ID"]):
        name = row["ID"]
        image = root / "Images" / f"{name}.png"
        if image.is_file() and name in cases:
            records.append(
                Record(
                    image=image,
                    mask=root / "Masks" / f"mask_{name.removeprefix('bus_')}.png",
                    patient=f"busbra-{cases[name]['Case']}",
                    label=cases[name]["Pathology"],
                    dataset="BUS-BRA",
                    fold=row["kFold"],
                    birads=(cases[name].get("BIRADS") or "").strip(),
                    device=(cases[name].get("Device") or "").strip(),
                )
            )
    if not records:
        raise InputError(
            f"no BUS-BRA images under {root}",
            expected="Images/bus_0001-l.png and so on",
            fix="Point to the folder that holds bus_data.csv.",
        )
    return tuple(records)


def _table(path: Path, *columns: str) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            table = csv.DictReader(stream)
            columns_found = table.fieldnames or []
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise InputError(
            f"cannot read {path}",
            expected="the original layout of BUS-BRA",
            found=getattr(cause, "strerror", None) or str(cause),
        ) from cause
    missing = [name for name in columns if name not in columns_found]
    if missing:
        raise InputError(
            f"{path} has other columns than BUS-BRA",
            expected=", ".join(columns),
            found=", ".join(columns_found) or "none",
        )
    for number, row in enumerate(rows, start=1):
        if any(row[name] is None for name in columns):
            raise InputError(
                f"{path} is broken",
                expected="a value in each of " + ", ".join(columns),
                found=f"row {number} that ends before",
                fix="Copy the file again.",
            )
    return rows
