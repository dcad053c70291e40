"""Adds the keys and values of Gemma 3n's last layers, which llama.cpp requires and does not use.

These layers attend to the keys and values of earlier ones. Published checkpoints have weights for them all the same;
checkpoints that were saved with transformers lack them, and llama.cpp would not load the model.
Source: llama.cpp, src/models/gemma3n.cpp, load_arch_tensors; transformers, models/gemma3n/modeling_gemma3n.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

_PARTS: Final = ("k_proj.weight", "v_proj.weight", "k_norm.weight")


def with_unused_layers(model_class: Any) -> Any:
    """Return the converter's class ``model_class``, changed to write the missing weights as copies of another layer's.

    A copy is quantised like any other weights, which zeros are not.
    """

    class Completed(model_class):  # type: ignore[misc]
        model_arch = model_class.model_arch

        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            shared = int(self.hparams.get("num_kv_shared_layers") or 0)
            for name, source in missing_tensors(self.model_tensors, self.block_count, shared).items():
                self.model_tensors[name] = self.model_tensors[source]

    return Completed


def missing_tensors(names: Iterable[str], layers: int, shared: int) -> dict[str, str]:
    """Return names that the last ``shared`` of ``layers`` layers lack, each with the name of the tensor to copy."""
    known = set(names)
    copied = layers - shared - 1
    missing = {}
    for name in sorted(known):
        before, found, part = name.partition(f"layers.{copied}.self_attn.")
        if found and part in _PARTS:
            for layer in range(copied + 1, layers):
                missing[f"{before}layers.{layer}.self_attn.{part}"] = name
    return {name: source for name, source in missing.items() if name not in known}
