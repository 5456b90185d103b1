"""Trained coarse networks that come with the package, each with a model card beside it."""

from ultrarefiner.weights import PackagedWeights

PRETRAINED: dict[str, PackagedWeights] = {}
