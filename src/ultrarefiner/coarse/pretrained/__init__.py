"""Trained networks that come with the package, with their refiners; model cards lie beside."""

from ultrarefiner.weights import PackagedWeights

PRETRAINED = {
    "busbra-lite": PackagedWeights(
        name="busbra-lite",
        package="ultrarefiner",
        distribution="ultrarefiner",
        file="coarse/pretrained/busbra-lite.safetensors",
        sha256="7cd9be014bea1f560a39822729582ffac3784373914dc3bf68e472b596ebf0f5",
        licence="Apache-2.0; trained on BUS-BRA, cite its article",
        source="ultrarefiner train recipes/busbra.yaml",
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
