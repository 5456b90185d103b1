"""Tensor letters used in every public signature, and the aliases built from them.

B batch, C channels, H W rows and columns of an image, h w rows and columns of a low-resolution
mask, K candidate masks, N points. Coordinates are ``xy``, boxes ``xyxy``, in px of the named frame,
with the centre of pixel i at i + 0.5. Spacing is ``(dy, dx)`` in mm.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Float32, Int
from numpy import ndarray
from torch import Tensor

Images = Float[Tensor, "B C H W"]
Embeddings = Float[Tensor, "B D h w"]
ProbMaps = Float[Tensor, "B 1 h w"]
Candidates = Float[Tensor, "B K h w"]
Scores = Float[Tensor, "B K"]
Points = Float[Tensor, "B N 2"]
PointLabels = Int[Tensor, "B N"]
Boxes = Float[Tensor, "B 4"]

GreyImage = Float32[ndarray, "H W"]
Mask = Bool[ndarray, "H W"]
ProbMap = Float32[ndarray, "H W"]
