"""Trained networks that come with the package, with their refiners; model cards lie beside."""

from ultrarefiner.weights import PackagedWeights

PRETRAINED = {
    "busbra-lite": PackagedWeights(
        name="busbra-lite",
        package="ultrarefiner",
        distribution="ultrarefiner",
        file="coarse/pretrained/busbra-lite.safetensors",
        sha256="e0116eec3a16b3fa451167788345cbb22347090bde6f640e0ffa2171cb8cf27f",
        licence="Apache-2.0; trained on BUS-BRA, cite its article",
        source="ultrarefiner train recipes/busbra_tail.yaml",
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
