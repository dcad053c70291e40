"""Weights that are no numbers are found in files of every kind of block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter
from gguf.quants import quantize

from modelyard.engine.llama.weight_check import find_broken_tensor

KINDS = (Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0)


def file_of(path: Path, kind: Type, *, broken: bool) -> Path:
    values = np.random.default_rng(1).standard_normal((4, 256)).astype(np.float32)
    if broken:
        # Of a block it becomes the scale.
        values[2, 100] = np.inf
    writer = GGUFWriter(path, "llama")
    writer.add_tensor("whole", np.ones(32, np.float32))
    with np.errstate(invalid="ignore", over="ignore"):
        writer.add_tensor("looked.at", quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_infinite_weight_is_told_by_the_name_of_its_tensor(tmp_path: Path, kind: Type) -> None:
    assert find_broken_tensor(file_of(tmp_path / "broken.gguf", kind, broken=True), 2) == "looked.at"
    assert find_broken_tensor(file_of(tmp_path / "whole.gguf", kind, broken=False), 2) is None


def test_real_weights_are_numbers(weights: dict[str, Path]) -> None:
    assert all(find_broken_tensor(path, 2) is None for path in weights.values())
