"""``[[models.adapters]]``: LoRA adapters that are served beside their base model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, Strict, StringConstraints, ValidationInfo, field_validator

from modelyard.config.base import Table, Text
from modelyard.config.paths import absolute, base_of

SEPARATOR: Final = "::"
"""Between the id of a model and the name of one of its adapters."""

MAX_NAME_LENGTH: Final = 256
MAX_SCALE: Final = 1000

# Without what separates names in ids.
AdapterName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH, pattern=r"^[^\s:+%#]+$")]
AdapterScale = Annotated[float, Field(ge=-MAX_SCALE, le=MAX_SCALE, allow_inf_nan=False)]


class Adapter(Table):
    """``[[models.adapters]]``: a LoRA adapter, which is served as the model ``<id of the model>::<name>``."""

    name: AdapterName = Field(
        description="Name of the adapter, without blanks and `: + % #`. The model `<id>::<name>` is the model with "
        "it, `<id>::<name>+<other>` with several together. The name alone routes to it, too, where no other model has "
        "it."
    )
    path: Annotated[Path, Strict(False)] = Field(
        description="GGUF file of the adapter, or folder of an adapter of PEFT (`adapter_config.json`, "
        "`adapter_model.safetensors`), which is converted. Relative to the TOML file."
    )
    scale: AdapterScale = Field(default=1.0, description="Factor of what the adapter adds to the weights.")
    applied: bool = Field(
        default=False,
        description="Whether requests that name no adapter use it, too, as with llama-server's `--lora`.",
    )
    alias: Text | None = Field(
        default=None, description="Another name that routes to the model with the adapter. It is not listed."
    )

    @field_validator("path")
    @classmethod
    def _make_absolute(cls, path: Path, info: ValidationInfo) -> Path:
        return absolute(path, base_of(info.context))
