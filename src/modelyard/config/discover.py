"""``[discover]``: where models are looked for that no ``[[models]]`` table names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, Strict, ValidationInfo, field_validator

from modelyard.config.base import Items as _List
from modelyard.config.base import Table
from modelyard.config.names import StoreName
from modelyard.config.paths import absolute, base_of

STORES: Final[tuple[StoreName, ...]] = ("huggingface", "ollama", "lmstudio", "llama.cpp", "gpt4all")
"""The programs whose models are found, in the order in which their names are given away."""


class Discover(Table):
    """``[discover]``: models of this machine that are served beside the configured ones, each loaded on demand."""

    stores: _List[StoreName] = Field(
        default=(),
        description="Programs whose downloaded models are served, too: `huggingface`, `ollama`, `lmstudio`, "
        "`llama.cpp`, `gpt4all`, or `all` of them. Their files are read where they are, and never changed.",
    )
    folders: _List[Annotated[Path, Strict(False)]] = Field(
        default=(),
        description="Folders whose models are served, too: GGUF files and checkpoints in safetensors, also three "
        "levels below. Relative to the TOML file.",
    )

    @field_validator("folders")
    @classmethod
    def _make_absolute(cls, folders: tuple[Path, ...], info: ValidationInfo) -> tuple[Path, ...]:
        return tuple(absolute(folder, base_of(info.context)) for folder in folders)

    @property
    def is_on(self) -> bool:
        """Whether there is anything to look in."""
        return bool(self.stores or self.folders)

    @property
    def named_stores(self) -> tuple[StoreName, ...]:
        """The stores to look in, without ``all``, each once."""
        return tuple(store for store in STORES if store in self.stores or "all" in self.stores)
