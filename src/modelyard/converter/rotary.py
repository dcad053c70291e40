"""Rows of queries and keys in the order of llama.cpp's rotary embedding, where it turns a part of each head.

transformers rotates the first half of what it turns against the second; llama.cpp rotates neighbours in models of the
kind of Llama, so that the converter brings the rows together. For Bamba it pairs the halves of the whole head, although
only its first half is turned.
Source: llama.cpp, conversion/llama.py, LlamaModel.permute, and conversion/granite.py, GraniteHybridModel; transformers,
models/bamba/modeling_bamba.py, apply_rotary_pos_emb.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def with_partial_rotation(model_class: Any) -> Any:
    """``model_class``, of llama.cpp's converter, with the rows that are turned paired among themselves."""

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
                turned = self.hparams.get("attn_rotary_emb") or head_size // 2
                data_torch = paired(data_torch, heads, turned)
            yield from super().modify_tensors(data_torch, name, bid)

    return PartlyRotated


def paired(weights: Any, heads: int, turned: int) -> Any:
    """The rows of ``weights`` with those beside each other that are rotated together, among the first ``turned``.

    Works on anything with the methods of a torch tensor that the converter itself uses.
    """
    rows, width = weights.shape
    by_head = weights.reshape(heads, rows // heads, width)
    first = by_head[:, :turned].reshape(heads, 2, turned // 2, width).swapaxes(1, 2).reshape(heads, turned, width)
    import torch

    return torch.cat((first, by_head[:, turned:]), dim=1).reshape(rows, width)
