"""Each family is decoded exactly, and converted to GGUF with the same codes where there is a type for them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize as dequantize_ggml
from gguf.quants import quantize

from modelyard.converter.uqff.blocks import block_type, blocks, dequantize
from modelyard.formats.uqff.reader import UqffLayer, read_uqff
from support import uqff
from support.uqff import E4M3, FP4, Tensors, safetensors, version

RANDOM = np.random.default_rng(7)


@pytest.fixture
def layer(tmp_path: Path):
    def write(tensors: Tensors) -> UqffLayer:
        path = tmp_path / "q-0.uqff"
        path.write_bytes(safetensors(version() | tensors))
        return read_uqff([path])[0]

    return write


def floats(*shape: int) -> np.ndarray:
    return RANDOM.uniform(-2, 2, shape).astype(np.float16)


def signed(codes: np.ndarray, magnitudes: list[float], sign: int) -> np.ndarray:
    return np.array(magnitudes, np.float32)[codes & (sign - 1)] * np.where(codes & sign, -1, 1).astype(np.float32)


# Families


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_afq_is_an_offset_and_a_scale_for_each_group(layer, bits: int, group: int):
    codes = RANDOM.integers(0, 2**bits, (3, 256))
    scales, biases = floats(3, 256 // group), floats(3, 256 // group)
    stored = layer(uqff.afq_of("a", codes, scales, biases, bits))
    grouped = codes.reshape(3, -1, group).astype(np.float32)
    expected = biases[..., None].astype(np.float32) + grouped * scales[..., None].astype(np.float32)
    assert np.array_equal(dequantize(stored), expected.reshape(3, 256))


@pytest.mark.parametrize("bits", [4, 8, 2, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_hqq_is_a_zero_point_and_a_scale_for_each_column_or_row(layer, bits: int, axis: int):
    codes = RANDOM.integers(0, 2**bits, (64, 24) if axis == 0 else (24, 64))
    scales, zeros = floats(24), floats(24)
    stored = layer(uqff.hqq_of("a", codes, scales, zeros, bits, (12, 128), axis))
    side = (1, -1) if axis == 0 else (-1, 1)
    by_scale, by_zero = (values.astype(np.float32).reshape(side) for values in (scales, zeros))
    assert np.array_equal(dequantize(stored), ((codes.astype(np.float32) - by_zero) * by_scale).reshape(12, 128))


def test_fp8_is_one_scale_for_all(layer):
    codes = np.array([code for code in range(256) if code & 0x7F != 0x7F], np.uint8).reshape(2, 127)
    stored = layer(uqff.fp8_of("a", codes, 0.5))
    assert np.array_equal(dequantize(stored), signed(codes, E4M3, 128) * np.float32(0.5))


def test_f8q8_is_eight_bits_with_a_small_scale_and_may_end_in_a_part_of_a_block(layer):
    codes = RANDOM.integers(-127, 128, (4, 32))
    scales = np.array([0x38, 0x01, 0x7E, 0x40], np.uint8)
    stored = layer(uqff.f8q8_of("a", codes, scales, (5, 25)))
    expected = codes * (signed(scales, E4M3, 128) / np.float32(448))[:, None]
    assert np.array_equal(dequantize(stored), expected.astype(np.float32).ravel()[:125].reshape(5, 25))


def test_mxfp4_is_four_bits_with_a_power_of_two(layer):
    codes, exponents = RANDOM.integers(0, 16, (2, 3, 64)), RANDOM.integers(100, 140, (2, 3, 2))
    stored = layer(uqff.mxfp4_of("a", codes, exponents))
    values = signed(codes, FP4, 8).reshape(2, 3, 2, 32) * np.exp2(exponents - 127.0)[..., None]
    assert np.array_equal(dequantize(stored), values.reshape(2, 3, 64).astype(np.float32))


@pytest.mark.parametrize("kind", ["F32", "F16"])
def test_weights_that_are_not_quantised_are_what_they_are(layer, kind: str):
    values = floats(2, 8).astype(kind.replace("F", "float"))
    stored = layer(uqff.unquant("a", values))
    assert np.array_equal(dequantize(stored), values.astype(np.float32))
    assert block_type(stored) == Type[kind]
    assert blocks(stored).tobytes() == values.tobytes()


def test_bfloat16_is_the_upper_half_of_a_float(layer):
    values = floats(2, 8).astype(np.float32)
    upper = (values.view(np.uint32) >> 16).astype("<u2")
    stored = layer({"a.weight.format": uqff.u8(1), "a.weight": ("BF16", (2, 8), upper.tobytes())})
    assert np.array_equal(dequantize(stored), (upper.astype(np.uint32) << 16).view(np.float32))
    assert block_type(stored) == Type.BF16


@pytest.mark.parametrize("kind", [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.BF16])
def test_blocks_of_ggml_are_kept(layer, kind: Type):
    data = quantize(floats(2, 3, 64).astype(np.float32), kind)
    stored = layer(uqff.ggml("a", data.tobytes(), int(kind), (2, 3, 64)))
    assert block_type(stored) == kind
    assert blocks(stored).tobytes() == data.tobytes()
    assert np.array_equal(dequantize(stored), dequantize_ggml(data, kind))


# Codes that another type holds


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_afq_of_up_to_four_bits_is_exactly_q4_1(layer, bits: int):
    stored = layer(uqff.afq("a", floats(2, 3, 128), bits=bits))
    assert block_type(stored) == Type.Q4_1
    assert np.array_equal(dequantize_ggml(blocks(stored), Type.Q4_1), dequantize(stored))


def test_mxfp4_is_exactly_mxfp4(layer):
    stored = layer(uqff.mxfp4("a", floats(3, 64)))
    assert block_type(stored) == Type.MXFP4
    assert np.array_equal(dequantize_ggml(blocks(stored), Type.MXFP4), dequantize(stored))


def test_q8_1_is_exactly_q8_0(layer):
    codes = RANDOM.integers(-127, 128, (6, 32)).astype(np.int8)
    data = b"".join(struct.pack("<ee32b", 0.25 * row, 9, *codes[row]) for row in range(6))
    stored = layer(uqff.ggml("a", data, int(Type.Q8_1), (3, 64)))
    expected = (codes * (0.25 * np.arange(6, dtype=np.float32))[:, None]).reshape(3, 64)
    assert np.array_equal(dequantize(stored), expected)
    assert block_type(stored) == Type.Q8_0
    assert np.array_equal(dequantize_ggml(blocks(stored), Type.Q8_0), expected)


def test_q8_k_is_q8_0_with_scales_of_half_precision(layer):
    codes = RANDOM.integers(-128, 128, (2, 256)).astype(np.int8)
    data = b"".join(struct.pack("<f256b16h", 0.1 * (row + 1), *codes[row], *[0] * 16) for row in range(2))
    stored = layer(uqff.ggml("a", data, int(Type.Q8_K), (2, 256)))
    scales = np.array([0.1, 0.2], np.float32)
    assert np.array_equal(dequantize(stored), codes * scales[:, None])
    assert block_type(stored) == Type.Q8_0
    halved = codes * scales.astype(np.float16).astype(np.float32)[:, None]
    assert np.array_equal(dequantize_ggml(blocks(stored), Type.Q8_0), halved)


def test_f8q8_is_q8_0_with_scales_of_half_precision(layer):
    stored = layer(uqff.f8q8("a", floats(3, 64)))
    assert block_type(stored) == Type.Q8_0
    assert np.allclose(dequantize_ggml(blocks(stored), Type.Q8_0), dequantize(stored), rtol=2**-11, atol=0)


def test_codes_that_no_type_has_are_quantised_again(layer):
    beyond_half = uqff.afq_of("a", np.ones((1, 64), int), *np.full((2, 1, 1), 1e6, np.float32), bits=4)
    for tensors in (
        uqff.afq("a", floats(1, 64), bits=6),
        uqff.hqq("a", floats(4, 64)),
        uqff.fp8("a", floats(1, 64)),
        uqff.f8q8("a", floats(1, 48)),
        beyond_half,
    ):
        assert block_type(layer(tensors)) is None
