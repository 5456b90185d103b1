"""Trained coarse networks that come with the package, each with a model card beside it."""

from ultrarefiner.weights import PackagedWeights

PRETRAINED = {
    "busbra-lite": PackagedWeights(
        name="busbra-lite",
        package="ultrarefiner",
        distribution="ultrarefiner",
        file="coarse/pretrained/busbra-lite.safetensors",
        sha256="d7bfe99c1aa8e4165bb4786ec5686614b6d94599dab8c9365cc3f6d87b72a4da",
        licence="Apache-2.0; trained on BUS-BRA, cite its article",
        source="ultrarefiner train recipes/busbra_unet.yaml",
    ),
}
