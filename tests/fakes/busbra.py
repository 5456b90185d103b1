"""BUS-BRA as it is unpacked: two tables, ``Images/bus_*.png``, ``Masks/mask_*.png``."""

from __future__ import annotations

from pathlib import Path

from fakes.scenes import HEIGHT_PX, WIDTH_PX, draw_scene, save_png

CASES = (
    ("0001-l", 1, "invasive ductal carcinoma", "malignant", 4, 3),
    ("0001-r", 1, "invasive ductal carcinoma", "malignant", 4, 3),
    ("0004-l", 4, "fibroadenoma", "benign", 2, 1),
    ("0007-s", 7, "cyst", "benign", 3, 3),
)


def write_fake_busbra(folder: Path) -> Path:
    """Fill ``folder``: three patients, two folds; the fold table is in another order."""
    data = ["ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX"]
    folds = ["ID,Pathology,kFold,valid_1,valid_2,valid_3,valid_4,valid_5"]
    for index, (name, case, histology, pathology, birads, fold) in enumerate(CASES):
        scene = draw_scene(index)
        save_png(folder / "Images" / f"bus_{name}.png", scene.image)
        save_png(folder / "Masks" / f"mask_{name}.png", scene.mask)
        data.append(
            f"bus_{name},{case},{histology},{pathology},{birads},GE Logiq 7 @10-14MHz,"
            f'{WIDTH_PX},{HEIGHT_PX},left,"[4,6,20,11]"'
        )
        valid = ",".join("NaN" if number == fold else "1" for number in range(1, 6))
        folds.insert(1, f"bus_{name},{pathology},{fold},{valid}")
    (folder / "bus_data.csv").write_text("\n".join(data) + "\n", encoding="utf-8")
    (folder / "5-fold-cv.csv").write_text("\n".join(folds) + "\n", encoding="utf-8")
    return folder
