"""Public data sets in their original layouts, read into manifests."""

from ultrarefiner.data.sources.busbra import read_busbra

__all__ = ["read_busbra"]
