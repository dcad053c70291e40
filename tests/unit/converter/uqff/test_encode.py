"""Round trips through the encoders and the decoders of UQFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelyard.converter.protocol import Refused
from modelyard.converter.safetensors_file import MappedTensor, SafetensorsWriter, as_float32, read_tensors, to_bytes
from modelyard.converter.uqff.blocks import dequantize
from modelyard.converter.uqff.encode import E4M3_VALUES, to_e4m3
from modelyard.converter.uqff.layers import Layer
from modelyard.converter.uqff.tensors import layer_tensors, version_tensors
from modelyard.formats.uqff.constants import TYPES
from modelyard.formats.uqff.reader import read_uqff

# Maximum root mean squared error, relative to the standard deviation of normally distributed weights.
ERRORS = {
    "q2k": 0.40, "q3k": 0.20, "q4k": 0.10, "q4_0": 0.13, "q4_1": 0.12, "q5k": 0.05, "q5_0": 0.07, "q5_1": 0.06,
    "q6k": 0.03, "q8k": 0.01, "q8_0": 0.01, "q8_1": 0.01, "hqq4": 0.12, "hqq8": 0.01, "fp8": 0.04, "afq2": 0.60,
    "afq3": 0.28, "afq4": 0.12, "afq6": 0.03, "afq8": 0.01, "f8q8": 0.01, "mxfp4": 0.14,
}  # fmt: skip


def a_layer(values: np.ndarray, dtype: str = "F32") -> Layer:
    values = np.asarray(values, np.float32)
    stacked = values.ndim == 3
    parts = tuple(
        MappedTensor(f"model.{number}.weight", dtype, part.shape, to_bytes(part, dtype))
        for number, part in enumerate(values if stacked else [values])
    )
    return Layer("model.up_proj", parts, None, is_stacked=stacked, is_sensitive=False)


def round_trip(layer: Layer, stored: str, folder: Path, importance: np.ndarray | None = None) -> np.ndarray:
    path = folder / "x-0.uqff"
    tensors = [*version_tensors(), *layer_tensors(layer, stored, None, [importance] * len(layer.parts))]
    with SafetensorsWriter(path, [tensor.name for tensor in tensors], {}) as writer:
        for tensor in tensors:
            writer.add(tensor.name, tensor.dtype, tensor.shape, tensor.data)
    (read,) = read_uqff([path])
    return np.asarray(dequantize(read), np.float32)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.05, shape).astype(np.float32)


@pytest.mark.parametrize("stored", TYPES)
def test_weights_come_back_as_near_as_the_type_allows(stored: str, tmp_path: Path):
    values = normal(96, 512)
    back = round_trip(a_layer(values), stored, tmp_path)
    assert back.shape == values.shape
    error = np.sqrt(np.square(back - values).mean()) / values.std()
    assert error < ERRORS[stored]


def test_no_type_is_left_without_a_bound():
    assert set(ERRORS) == set(TYPES)


@pytest.mark.parametrize("stored", ["q4k", "afq4", "mxfp4", "unquant"])
def test_experts_are_stacked_in_their_order(stored: str, tmp_path: Path):
    values = normal(3, 32, 256)
    back = round_trip(a_layer(values), stored, tmp_path)
    alone = [round_trip(a_layer(expert), stored, tmp_path) for expert in values]
    assert np.array_equal(back, np.stack(alone))


@pytest.mark.parametrize("stored", TYPES)
def test_zeros_stay_zeros(stored: str, tmp_path: Path):
    assert not round_trip(a_layer(np.zeros((2, 512))), stored, tmp_path).any()


@pytest.mark.parametrize("stored", ["hqq4", "hqq8", "afq4", "fp8", "f8q8", "unquant"])
def test_weights_that_are_all_the_same_come_back(stored: str, tmp_path: Path):
    back = round_trip(a_layer(np.full((4, 64), -0.75)), stored, tmp_path)
    assert np.allclose(back, -0.75, rtol=0.01)


def test_what_lies_on_the_grid_of_a_type_is_exact(tmp_path: Path):
    grid = np.tile(np.arange(16) - 8, 4).reshape(1, 64) * 0.25
    for stored in ("afq4", "hqq4", "q4_1", "unquant"):
        assert np.array_equal(round_trip(a_layer(grid, "F16"), stored, tmp_path), grid)
    fp4 = np.tile([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.5, -1, -1.5, -2, -3, -4, -6, 0], 2).reshape(1, 32) * 0.125
    assert np.array_equal(round_trip(a_layer(fp4), "mxfp4", tmp_path), fp4)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize("stored", ["afq4", "hqq4"])
def test_scales_have_the_type_of_the_weights_and_cost_little_accuracy(stored: str, dtype: str, tmp_path: Path):
    values = normal(64, 256)
    layer = a_layer(values, dtype)
    scales = next(t for t in layer_tensors(layer, stored, None, [None]) if t.name.endswith(".scales"))
    assert scales.dtype == dtype
    back = round_trip(layer, stored, tmp_path)
    assert np.sqrt(np.square(back - values).mean()) / values.std() < 1.1 * ERRORS[stored]


def test_columns_that_matter_are_met_better_with_an_importance_matrix(tmp_path: Path):
    values = normal(64, 256)
    importance = np.full(256, 1e-3, np.float32)
    importance[::16] = 1.0
    for stored in ("q2k", "q4k"):
        errors = [
            np.square(round_trip(a_layer(values), stored, tmp_path, given) - values)[:, ::16].mean()
            for given in (None, importance)
        ]
        assert errors[1] < errors[0]


def test_weights_that_are_no_numbers_are_refused_and_not_handed_to_llama_cpp():
    values = normal(2, 256)
    values[1, 3] = np.nan
    with pytest.raises(Refused, match="not all finite numbers"):
        layer_tensors(a_layer(values), "q4k", None, [None])


def test_numbers_of_eight_bits_round_to_the_nearest_and_ties_to_even():
    assert np.array_equal(E4M3_VALUES[to_e4m3(E4M3_VALUES)], E4M3_VALUES)
    middle = (E4M3_VALUES[1:] + E4M3_VALUES[:-1]) / 2
    assert not (to_e4m3(middle) & 1).any()
    assert np.array_equal(to_e4m3(np.array([1e9, -1e9, -0.0], np.float32)), [126, 254, 128])


def test_sixteen_bits_round_to_the_nearest_even():
    values = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, -3.0e38, 0.1], np.float32)
    assert as_float32(to_bytes(values, "BF16"), "BF16")[:2].tolist() == [1.0, 1 + 2.0**-6]


def test_a_file_is_what_its_readers_expect(tmp_path: Path):
    from safetensors import safe_open

    path = tmp_path / "x.safetensors"
    with SafetensorsWriter(path, ["odd", "a"], {"who": "test"}) as writer:
        writer.add("odd", "U8", (3,), np.arange(3, dtype=np.uint8))
        writer.add("a", "F32", (2,), to_bytes(np.array([1, 2], np.float32), "F32"))
    with safe_open(path, "np") as reader:
        assert reader.metadata() == {"who": "test"}
        assert reader.get_tensor("a").tolist() == [1, 2]
    assert {tensor.name: tensor.data.tolist() for tensor in read_tensors(path)}["odd"] == [0, 1, 2]


def test_a_damaged_file_is_refused(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    path.write_bytes((100).to_bytes(8, "little") + b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}')
    with pytest.raises(Refused, match="damaged"):
        read_tensors(path)
