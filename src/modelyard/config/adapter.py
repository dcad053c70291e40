"""``[[models.adapters]]``: LoRA adapters and control vectors that are served beside their base model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, Strict, StringConstraints, ValidationInfo, field_validator

from modelyard.config.base import Items, Table, Text
from modelyard.config.paths import absolute, base_of

SEPARATOR: Final = "::"
"""Between the id of a model and the name of one of its adapters."""

TOGETHER: Final = "+"
"""Between the names of adapters that are used together."""

MAX_NAME_LENGTH: Final = 256
MAX_SCALE: Final = 1000
MAX_LAYER: Final = 100_000

# Without what separates names in ids.
AdapterName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH, pattern=r"^[^\s:+%#]+$")]
LayerNumber = Annotated[int, Field(ge=1, le=MAX_LAYER)]
AdapterScale = Annotated[float, Field(ge=-MAX_SCALE, le=MAX_SCALE, allow_inf_nan=False)]


class Adapter(Table):
    """``[[models.adapters]]``: a LoRA adapter or a control vector, served as ``<id of the model>::<name>``."""

    name: AdapterName = Field(
        description="Name of the adapter, without blanks and `: + % #`. The model `<id>::<name>` is the model with "
        "it, `<id>::<name>+<other>` with several together. The name alone routes to it, too, where no other model has "
        "it."
    )
    path: Annotated[Path, Strict(False)] = Field(
        description="GGUF file of the adapter, or folder of an adapter of PEFT (`adapter_config.json`, "
        "`adapter_model.safetensors`), which is converted, or GGUF file of a control vector. Relative to the TOML file."
    )
    scale: AdapterScale = Field(
        default=1.0,
        description="Factor of what an adapter adds to the weights, or a control vector to what layers compute.",
    )
    applied: bool = Field(
        default=False,
        description="Whether requests that name no adapter use it, too, as with llama-server's `--lora`.",
    )
    layers: Items[LayerNumber] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="First and last layer that a control vector is applied to, as `--control-vector-layer-range` of "
        "llama.cpp. Unset: all that it has directions for.",
    )
    alias: Text | None = Field(
        default=None, description="Another name that routes to the model with the adapter. It is not listed."
    )

    @field_validator("layers")
    @classmethod
    def _check_order(cls, layers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if layers is not None and layers[0] > layers[1]:
            raise ValueError(f"the first layer, {layers[0]}, comes behind the last, {layers[1]}")
        return layers

    @field_validator("path")
    @classmethod
    def _make_absolute(cls, path: Path, info: ValidationInfo) -> Path:
        return absolute(path, base_of(info.context))
