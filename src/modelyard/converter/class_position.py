"""The positions of InternVL's tower, which llama.cpp counts from the first patch and its makers from the class token.

llama.cpp puts the class token behind the patches, but its converter leaves the positions as they are, where the class
token's is the first: every patch would have the position of its neighbour. Attention does not mind the order of tokens,
so that the class token's position put last makes it right.
Source: llama.cpp, tools/mtmd/models/internvl.cpp; conversion/internvl.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

_POSITIONS: Final = "embeddings.position_embedding"


def with_class_position_last(model_class: Any) -> Any:
    """The converter's projector class ``model_class``, which writes positions in the order of llama.cpp's tokens."""

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
