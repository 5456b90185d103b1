"""Public data sets and layouts, read into manifests. One module each; see :mod:`.source`."""

from ultrarefiner.data.sources.busbra import read_busbra
from ultrarefiner.data.sources.busi import read_busi
from ultrarefiner.data.sources.coco import read_coco
from ultrarefiner.data.sources.folder import read_folder
from ultrarefiner.data.sources.importing import Imported, import_source
from ultrarefiner.data.sources.monai import read_monai
from ultrarefiner.data.sources.nnunet import read_nnunet
from ultrarefiner.data.sources.source import SOURCES, Found, Source

__all__ = [
    "SOURCES",
    "Found",
    "Imported",
    "Source",
    "import_source",
    "read_busbra",
    "read_busi",
    "read_coco",
    "read_folder",
    "read_monai",
    "read_nnunet",
]
