"""A LoRA adapter beside the weights of a model."""

from __future__ import annotations

from pathlib import Path

from modelyard.engine.llama.library import lib, log, reason
from modelyard.engine.llama.log_lines import buffer_bytes
from modelyard.engine.llama.model import Model
from modelyard.errors import UnusableModel


class Adapter:
    """The matrices of one adapter, which contexts on the same weights can compute with.

    Args:
        model: the weights that it changes. They must outlive it.
        path: its GGUF file, which was checked: see ``formats.gguf.adapter_checks``.

    Attributes:
        allocated_bytes: memory of its matrices.

    Raises:
        UnusableModel: llama.cpp cannot load it.
    """

    def __init__(self, model: Model, path: Path) -> None:
        self._lock = model.adapter_lock
        log.clear()
        with self._lock.changing():
            self.pointer = lib.llama_adapter_lora_init(model.pointer, bytes(path))
        if not self.pointer:
            raise UnusableModel(f"llama.cpp cannot load the adapter {path.name}: {reason()}")
        self.allocated_bytes = buffer_bytes(log.buffers, "LoRA")

    def free(self) -> None:
        """Free its matrices. No context may compute with it any more."""
        with self._lock.changing():
            lib.llama_adapter_lora_free(self.pointer)
