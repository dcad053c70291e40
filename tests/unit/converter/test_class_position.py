"""InternVL's positions are written in the order of llama.cpp's tokens: patches first, the class token last."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from modelyard.converter.class_position import with_class_position_last


class Projector:
    """A projector class of llama.cpp's converter that writes tensors unchanged."""

    model_arch = "mmproj"

    def modify_tensors(self, data_torch: Any, name: str, bid: int | None) -> Iterable[tuple[str, Any]]:
        yield name, data_torch


@pytest.mark.parametrize("shape", [(1, 5, 2), (5, 2)])
def test_the_first_position_becomes_the_last(torch: Any, shape: tuple[int, ...]) -> None:
    positions = torch.arange(10.0).reshape(shape)
    name = "vision_tower.vision_model.embeddings.position_embedding.weight"
    [(written, rows)] = with_class_position_last(Projector)().modify_tensors(positions, name, None)
    assert written == name
    assert rows.shape == positions.shape
    assert rows.reshape(5, 2)[:, 0].tolist() == [2.0, 4.0, 6.0, 8.0, 0.0]


def test_other_tensors_stay_as_they_are(torch: Any) -> None:
    weights = torch.arange(10.0).reshape(5, 2)
    [(_, written)] = with_class_position_last(Projector)().modify_tensors(weights, "mlp1.1.weight", 1)
    assert written is weights
