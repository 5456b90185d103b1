"""NumPy ``.npy`` files. Pickled objects are refused."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.lib.format import open_memmap

from ultrarefiner.data.formats.raster import DECODERS, Raster, check_extent, unreadable
from ultrarefiner.errors import InputError

# What a damaged header raises. It is parsed as a Python literal, so syntax errors are among them;
# memory and overflow errors come from absurd lengths.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    SyntaxError,
    TokenError,
    MemoryError,
    OverflowError,
)


@DECODERS.register(".npy")
def decode_array(path: Path) -> Raster:
    """Decode a real-valued array of shape (H, W), or (1, H, W) as networks write it.

    The file is mapped, not read: its header is checked against its length, and the pixels are
    copied only once shape and dtype are known to be fine.

    Raises:
        InputError: no ``.npy`` file, objects or complex numbers inside, or another shape.
    """
    try:
        mapped = open_memmap(path, mode="r")
    except _DAMAGE as cause:
        raise unreadable(path, "a complete .npy array of numbers", cause) from cause
    if mapped.dtype.kind not in "biuf":
        raise InputError(
            f"cannot use {path}", expected="real numbers", found=f"dtype {mapped.dtype}"
        )
    while mapped.ndim > 2 and mapped.shape[0] == 1:
        mapped = mapped[0]
    check_extent(path, mapped.shape)
    return Raster(np.array(mapped, dtype=mapped.dtype.newbyteorder("=")))
