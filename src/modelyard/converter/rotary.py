"""Orders rows of queries and keys for llama.cpp's rotary embedding, where only a part of each head is rotated.

transformers rotates the first half of the rotated rows against the second half; llama.cpp rotates adjacent rows in
models like Llama, so that its converter reorders them. For Bamba it pairs the halves of the whole head, although only
the head's first half is rotated.
Source: llama.cpp, conversion/llama.py, LlamaModel.permute, and conversion/granite.py, GraniteHybridModel; transformers,
models/bamba/modeling_bamba.py, apply_rotary_pos_emb.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def with_partial_rotation(model_class: Any) -> Any:
    """Return the converter's class ``model_class``, changed to pair rows only within the rotated part of a head."""

    class PartlyRotated(model_class):  # type: ignore[misc]
        model_arch = model_class.model_arch
        undo_permute = False

        def modify_tensors(self, data_torch: Any, name: str, bid: int | None) -> Iterable[tuple[str, Any]]:
            heads = {
                "q_proj.weight": self.hparams["num_attention_heads"],
                "k_proj.weight": self.hparams["num_key_value_heads"],
            }.get(".".join(name.split(".")[-2:]))
            if heads is not None:
                head_size = data_torch.shape[0] // heads
                rotated = self.hparams.get("attn_rotary_emb") or head_size // 2
                data_torch = paired(data_torch, heads, rotated)
            yield from super().modify_tensors(data_torch, name, bid)

    return PartlyRotated


def paired(weights: Any, heads: int, rotated: int) -> Any:
    """Return ``weights`` with rows that are rotated together made adjacent, in the first ``rotated`` rows of each head.

    Works on anything with the methods of a torch tensor that the converter itself uses.
    """
    rows, width = weights.shape
    by_head = weights.reshape(heads, rows // heads, width)
    first = by_head[:, :rotated].reshape(heads, 2, rotated // 2, width).swapaxes(1, 2).reshape(heads, rotated, width)
    import torch

    return torch.cat((first, by_head[:, rotated:]), dim=1).reshape(rows, width)
