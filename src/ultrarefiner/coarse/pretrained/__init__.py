"""Trained networks that come with the package, some with their refiner; model cards lie beside."""

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
    "nano": PackagedWeights(
        name="nano",
        package="ultrarefiner",
        distribution="ultrarefiner",
        file="coarse/pretrained/nano.safetensors",
        sha256="149d702a2062d4d49f4f1ad5350a0b925370cdc3036eec3ded411c3d9666aa74",
        licence="Apache-2.0; trained on phantoms",
        source="ultrarefiner train recipes/nano.yaml",
    ),
}
