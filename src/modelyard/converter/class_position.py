"""Reorders the position embeddings of InternVL's tower for llama.cpp, which puts the class token last.

In the checkpoint the class token's position comes first, and llama.cpp's converter keeps that order, so that every
patch would get the position of its neighbour. Attention does not depend on the order of tokens: moving the class
token's position to the end makes the outcome equal.
Source: llama.cpp, tools/mtmd/models/internvl.cpp; conversion/internvl.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

_POSITIONS: Final = "embeddings.position_embedding"


def with_class_position_last(model_class: Any) -> Any:
    """Return the converter's projector class ``model_class``, changed to write positions in llama.cpp's token order."""

    class Reordered(model_class):  # type: ignore[misc]
        model_arch = model_class.model_arch

        def modify_tensors(self, data_torch: Any, name: str, bid: int | None) -> Iterable[tuple[str, Any]]:
            if _POSITIONS in name:
                import torch

                rows = data_torch.dim() - 2
                first, others = data_torch.narrow(rows, 0, 1), data_torch.narrow(rows, 1, data_torch.shape[rows] - 1)
                data_torch = torch.cat((others, first), dim=rows)
            yield from super().modify_tensors(data_torch, name, bid)

    return Reordered
