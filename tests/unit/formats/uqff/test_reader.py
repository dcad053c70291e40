from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import UnusableModel
from modelyard.formats.uqff.constants import Family
from modelyard.formats.uqff.reader import UqffLayer, read_uqff
from support import uqff
from support.thorough import thorough
from support.uqff import Tensor, Tensors, safetensors, u8, u32, version

VALUES = np.linspace(-1, 1, 4 * 256, dtype=np.float32).reshape(4, 256)
Q4_1 = 3
LAYERS = {
    "gguf": uqff.ggml("a.b", bytes(4 * 256 // 32 * 20), Q4_1, VALUES.shape),
    "unquant": uqff.unquant("a.b", VALUES),
    "hqq": uqff.hqq("a.b", VALUES),
    "fp8": uqff.fp8("a.b", VALUES),
    "afq": uqff.afq("a.b", VALUES, bits=3),
    "f8q8": uqff.f8q8("a.b", VALUES),
    "mxfp4": uqff.mxfp4("a.b", VALUES),
}


@pytest.fixture
def shard(tmp_path: Path):
    def write(*parts: Tensors) -> list[Path]:
        paths = []
        for number, tensors in enumerate(parts):
            paths.append(tmp_path / f"q-{number}.uqff")
            paths[-1].write_bytes(safetensors(tensors, {"uqff.producer": "mistral.rs"}))
        return paths

    return write


def refusal(paths: list[Path]) -> str:
    with pytest.raises(UnusableModel) as refused:
        read_uqff(paths)
    return str(refused.value)


def without(tensors: Tensors, *names: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


# What is in it


@pytest.mark.parametrize(
    ("name", "family", "stored"),
    [
        ("gguf", Family.GGUF, "Q4_1"),
        ("unquant", Family.UNQUANT, "F32"),
        ("hqq", Family.HQQ, "hqq4"),
        ("fp8", Family.FP8, "fp8"),
        ("afq", Family.AFQ, "afq3"),
        ("f8q8", Family.F8Q8, "f8q8"),
        ("mxfp4", Family.MXFP4, "mxfp4"),
    ],
)
def test_every_family_is_told_apart(shard, name: str, family: Family, stored: str):
    (layer,) = read_uqff(shard(version() | LAYERS[name]))
    assert (layer.prefix, layer.family, layer.stored, layer.shape) == ("a.b", family, stored, (4, 256))
    assert layer.bias is None


def test_layers_of_all_shards_are_there_sorted_by_name(shard):
    parts = (version() | uqff.unquant("b", VALUES), uqff.afq("a", VALUES) | version())
    assert [layer.prefix for layer in read_uqff(shard(*parts))] == ["a", "b"]


def test_a_layer_may_have_a_bias(shard):
    bias = uqff.array(np.zeros(4, np.float16))
    (layer,) = read_uqff(shard(version() | LAYERS["afq"] | {"a.b.bias": bias}))
    assert layer.bias is not None
    assert layer.bias.shape == (4,)


def test_experts_are_stacked(shard):
    stacked = uqff.mxfp4("experts.up_proj", VALUES.reshape(2, 2, 256))
    (layer,) = read_uqff(shard(version() | stacked))
    assert layer.shape == (2, 2, 256)


@pytest.mark.parametrize("minor", [0, 1, 2])
def test_versions_from_1_0_to_1_2_are_read(shard, minor: int):
    assert read_uqff(shard(version(1, minor, 9) | LAYERS["afq"]))


# What cannot be read


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"0": u8(0), "1": u8(0)}, "Pre-1.0 UQFF artifacts are no longer supported. Make it anew with"),
        (LAYERS["afq"], "This UQFF artifact has no version tag (pre-1.0 file)."),
        (version(2, 0, 0) | LAYERS["afq"], "UQFF version 2.0.0 is incompatible with 1.2.0, which is read here."),
        (version(0, 9, 0) | LAYERS["afq"], "UQFF version 0.9.0 is incompatible with 1.2.0, which is read here."),
        (version(1, 3, 0) | LAYERS["afq"], "UQFF version 1.3.0 is newer than 1.2.0, which is read here. Update"),
        (without(version(), "uqff.version.minor") | LAYERS["afq"], "uqff.version.minor is missing"),
        (version() | {"uqff.version.patch": u8(0)} | LAYERS["afq"], "'uqff.version.patch' must be a single U32"),
        (version(), "There are no quantised layers in it."),
        ({}, "There are no tensors in it."),
    ],
)
def test_other_versions_are_refused(shard, tensors: Tensors, message: str):
    assert message in refusal(shard(tensors))


def test_a_tensor_in_two_shards_is_refused(shard):
    paths = shard(version() | LAYERS["afq"], {"a.b.weight": u8(1)})
    message = refusal(paths)
    assert message.startswith(f"Duplicate tensor key 'a.b.weight' found in {paths[0]} and {paths[1]}.")


def test_shards_of_two_versions_are_refused(shard):
    message = refusal(shard(version() | LAYERS["afq"], version(1, 1)))
    assert message.startswith("Conflicting UQFF version tensor 'uqff.version.minor' found in")


def altered(name: str, **changes: Tensor) -> Tensors:
    """A layer with other parts; _ stands for the weights themselves, as a.b.weight."""
    names = {f"a.b.weight{'' if part == '_' else f'.{part}'}": tensor for part, tensor in changes.items()}
    return version() | LAYERS[name] | names


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (altered("gguf", format=u8(7)), "is stored in the unknown format 7"),
        (altered("gguf", format=u32(0)), "must be of the type U8, not U32"),
        (altered("gguf", format=("U8", (2,), b"\0\0")), "must be a single number"),
        (altered("gguf", dtype=u32(16)), "is of the GGML type 16, which UQFF does not have"),
        (altered("gguf", dtype=u32(12)), "has 640 bytes of weights, but its type and shape need 576"),
        (altered("gguf", shape=("U32", (2,), struct.pack("<2I", 4, 250))), "are no whole blocks of Q4_1"),
        (altered("gguf", shape=("U32", (2,), struct.pack("<2I", 0, 256))), "has the shape [0, 256]"),
        (altered("gguf", shape=("U32", (5,), struct.pack("<5I", *[1] * 5))), "has 5 dimensions"),
        (altered("unquant", _=u32(1)), "must be of the type F32 or F16 or BF16, not U32"),
        (altered("hqq", bits=u8(3)), "HQQ of 3 bits along the axis 0, which cannot be read"),
        (altered("hqq", axis=u8(2)), "HQQ of 4 bits along the axis 2, which cannot be read"),
        (altered("hqq", group_size=u32(0)), "cannot be divided into groups of 0"),
        (altered("hqq", group_size=u32(1)), "has 1 rows of codes, which are no whole bytes at 4 bits"),
        (altered("hqq", bits=u8(8)), "has 512 bytes of weights, but its type and shape need 1024"),
        (altered("hqq", zeros=("F16", (1,), b"\0\0")), "'a.b.weight.zeros' must have 16 numbers"),
        (altered("fp8", dequant_w_scale=("F32", (0,), b"")), "must be a single number"),
        (altered("afq", bits=u8(5)), "AFQ of 5 bits in groups of 64, which cannot be read"),
        (altered("afq", group_size=u8(16)), "AFQ of 3 bits in groups of 16, which cannot be read"),
        (altered("afq", group_size=u8(128)), "has codes of the shape [4, 24], which does not fit weights of [4, 512]"),
        (altered("afq", biases=("F16", (1,), b"\0\0")), "has scales of the shape [4, 4] and biases of [1]"),
        (altered("f8q8", num_blocks=u32(31)), "has 31 blocks, which does not fit weights of [4, 256]"),
        (altered("mxfp4", scales=u8(1)), "has scales of the shape [], which does not fit weights of [4, 256]"),
        (altered("mxfp4", _=u8(1)), "has no rows"),
        (without(altered("afq"), "a.b.weight"), "'a.b.weight' is missing"),
        (without(altered("afq"), "a.b.weight.scales"), "'a.b.weight.scales' is missing"),
        (altered("afq") | {"c.weight": u8(1)}, "it has 'c.weight', but not how that is stored (c.weight.format)"),
        (altered("afq") | {"a.b.bias": u8(1)}, "the bias of 'a.b' does not fit weights of the shape [4, 256]"),
        (version() | uqff.fp8("e", VALUES[:1].reshape(1, 2, 128)), "FP8 is for matrices alone"),
        (version() | uqff.hqq("e", VALUES.reshape(2, 2, 256)), "HQQ is for matrices alone"),
        (version() | uqff.f8q8("e", VALUES.reshape(2, 2, 256)), "F8Q8 is for matrices alone"),
    ],
)
def test_a_layer_whose_parts_do_not_fit_is_refused(shard, tensors: Tensors, message: str):
    assert message in refusal(shard(tensors))


def entry(dtype: Any = "U8", shape: Any = (1,), data_offsets: Any = (0, 1)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": data_offsets}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("[]", "its header is not a JSON object"),
        ("{", "its header is not JSON"),
        ("[" * 100_000, "its header is not JSON"),
        ('{"a": {}, "a": {}}', "'a' is there twice"),
        ({"a": 1}, "'a' is not described"),
        ({"a": entry(dtype="U7")}, "'a' is of the unknown type 'U7'"),
        ({"a": entry(dtype=["U8"])}, "'a' is of the unknown type ['U8']"),
        ({"a": entry(shape=[-1])}, "'a' has no shape that a tensor can have"),
        ({"a": entry(shape=[True])}, "'a' has no shape that a tensor can have"),
        ({"a": entry(shape=[1] * 9)}, "'a' has no shape that a tensor can have"),
        ({"a": entry(shape=None)}, "'a' has no shape that a tensor can have"),
        ({"a": entry(data_offsets=[0])}, "'a' has no place in the file"),
        ({"a": entry(data_offsets=[1, 0])}, "'a' lies at 1 to 0, but there are 4 bytes of data"),
        ({"a": entry(shape=[5], data_offsets=[0, 5])}, "'a' lies at 0 to 5, but there are 4 bytes of data"),
        ({"a": entry(shape=[2])}, "'a' has 1 bytes, but its type and shape need 2"),
        ({"a": entry(), "b": entry()}, "'a' and 'b' share bytes"),
    ],
)
def test_a_damaged_container_is_refused(tmp_path: Path, header: Any, message: str):
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path = tmp_path / "q-0.uqff"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)
    assert message in refusal([path])


@pytest.mark.parametrize("content", [b"", b"\1", struct.pack("<Q", 3) + b"{}", struct.pack("<Q", 2**63) + b"{}"])
def test_a_file_that_ends_in_its_header_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "q-0.uqff"
    path.write_bytes(content)
    assert "its header would take" in refusal([path])


def test_a_missing_file_is_named(tmp_path: Path):
    assert refusal([tmp_path / "q-0.uqff"]).startswith(f"{tmp_path}/q-0.uqff: It cannot be read: No such file")


# Whatever the header says, it is an error, and never a crash.

WHOLE = safetensors(
    version() | {f"{family}{name[3:]}": tensor for family, layer in LAYERS.items() for name, tensor in layer.items()}
)
LONGEST = 2**64 - 1

numbers = st.sampled_from([-1, 0, 1, 2, 3, 4, 8, 32, 64, 256, 2**31, 2**32, 2**63, LONGEST])
shapes = st.lists(numbers, max_size=9)
odd = st.sampled_from([None, True, -1, 1.5, float("nan"), "x", [], {}, [[1]], [True, 2], {"dtype": "U8"}, [None] * 2])
names = st.sampled_from(
    [
        *version(),
        *(f"{prefix}{name}" for prefix in ("a", "b") for layer in LAYERS.values() for name in (n[3:] for n in layer)),
        "0",
        "a.bias",
        "",
        "\ud800",
    ]
)
described = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "U32", "F8_E4M3", "F16", "BF16", "F32", "X"]) | odd,
        "shape": shapes | odd,
        "data_offsets": st.tuples(numbers, numbers) | odd,
    }
)


def read(path: Path, content: bytes) -> list[UqffLayer] | None:
    path.write_bytes(content)
    try:
        return read_uqff([path])
    except UnusableModel as refused:
        str(refused).encode()
        return None


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "q-0.uqff"


@thorough(300)
@given(header=st.dictionaries(names, described | odd, max_size=8), data=st.binary(max_size=64))
def test_any_header_is_read_or_refused(scratch: Path, header: dict[str, Any], data: bytes):
    text = json.dumps(header).encode()
    read(scratch, struct.pack("<Q", len(text)) + text + data)


@thorough(500)
@given(changes=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_file_with_changed_bytes_is_read_or_refused(scratch: Path, changes: list[tuple[int, int]]):
    content = bytearray(WHOLE)
    for at, byte in changes:
        content[at] = byte
    for layer in read(scratch, bytes(content)) or ():
        assert all(part.offset + part.size_bytes <= len(content) for part in layer.parts.values())


@thorough(300)
@given(
    family=st.sampled_from(sorted(LAYERS)),
    changed=st.dictionaries(
        st.sampled_from(["", ".format", ".dtype", ".shape", ".scales", ".zeros", ".biases", ".bits", ".group_size"])
        | st.sampled_from([".axis", ".num_blocks", ".dequant_w_scale"]),
        st.tuples(st.sampled_from(["U8", "U32", "F16", "F32", "F8_E4M3"]), st.lists(st.integers(0, 5), max_size=4)),
        max_size=4,
    ),
    byte=st.integers(0, 255),
)
def test_a_layer_of_any_parts_is_read_or_refused(
    scratch: Path, family: str, changed: dict[str, tuple[str, list[int]]], byte: int
):
    sizes = {"U8": 1, "U32": 4, "F16": 2, "F32": 4, "F8_E4M3": 1}
    parts: Tensors = {
        f"a.b.weight{suffix}": (dtype, tuple(shape), bytes([byte]) * int(np.prod(shape)) * sizes[dtype])
        for suffix, (dtype, shape) in changed.items()
    }
    read(scratch, safetensors(version() | LAYERS[family] | parts))


@thorough(200)
@given(length=st.integers(0, len(WHOLE) - 1))
def test_a_file_that_ends_early_is_refused(scratch: Path, length: int):
    assert read(scratch, WHOLE[:length]) is None
