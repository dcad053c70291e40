"""Files that are not GGUF, or not all of it: what is said about them."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import UnusableModel
from modelyard.hub import read_header
from support.gguf_writer import (
    ARR,
    I32,
    STR,
    TENSOR_I32,
    TENSOR_Q4_0,
    U16,
    U32,
    Tensor,
    array,
    gguf,
    model_pairs,
    model_tensors,
    pair,
    string,
    tiny_model,
    write,
)

HUGE = 2**63


def refusal(folder: Path, content: bytes) -> str:
    path = write(folder / "m.gguf", content)
    with pytest.raises(UnusableModel) as refused:
        read_header(path)
    text = str(refused.value)
    assert text.startswith(f"{path}: "), text
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The file is empty. Download it again."),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "This is a Git LFS pointer"),
        (struct.pack("<Q", 40) + b'{"__metadata__":{}}', "This is a safetensors file, not GGUF"),
        (b"PK\x03\x04rest", "This is a PyTorch file, not GGUF"),
        (b"\x80\x02}q", "This is a PyTorch file, not GGUF"),
        (b"tjgg\x03\0\0\0", "This is in the old GGML format"),
        (b"<!DOCTYPE html><html>", "This is a web page, not GGUF"),
        (b"\xde\xad\xbe\xefabcdef", "This is not a GGUF file: it starts with de ad be ef 61 62 63 64, not with"),
        (b"GG", "The file is cut off: 24 bytes expected at least"),
        (b"GGUF", "The file is cut off: 8 bytes expected at least, for the GGUF version, 4 present (4 missing)"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "This GGUF file is big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "This is GGUF version 1, which is no longer supported"),
        (b"GGUF" + struct.pack("<IQQ", 4, 0, 0), "This is GGUF version 4, but only versions 2 and 3 can be read"),
    ],
)
def test_what_is_not_gguf_is_named(tmp_path: Path, content: bytes, message: str):
    assert refusal(tmp_path, content).startswith(message)


def test_a_cut_off_file_says_how_much_is_missing(tmp_path: Path):
    whole = tiny_model()
    expected = f"The file is cut off: {len(whole)} bytes expected, {len(whole) - 1000} present (1000 missing)."
    assert refusal(tmp_path, whole[:-1000]) == f"{expected} Download it again."


def test_a_file_is_cut_off_wherever_it_ends(tmp_path: Path):
    content = gguf(model_pairs(), [Tensor("token_embd.weight", (32, 4)), Tensor("output_norm.weight", (32,))])
    for length in (*range(1, 600, 7), *range(600, len(content), 97)):
        assert "is cut off" in refusal(tmp_path, content[:length]), length


PAIR_PROBLEMS: list[tuple[bytes, str]] = [
    (pair("k", 13, b"\0" * 8), "'k' has the unknown type 13"),
    (pair("k", 2**32 - 1, b"\0" * 8), "'k' has the unknown type 4294967295"),
    (string("") + b"\0" * 20, "Metadata key 0 is empty"),
    (string(b"\xff\xfe") + b"\0" * 20, "metadata key 0 is not UTF-8: byte 0xff at 0"),
    (pair("k", STR, string(b"ab\xc3")), "'k' is not UTF-8: byte 0xc3 at 2"),
    (struct.pack("<Q", HUGE) + b"\0" * 20, f"metadata key 0 claims {HUGE} bytes"),
    (pair("k", STR, struct.pack("<Q", HUGE) + b"\0" * 20), f"'k' claims {HUGE} bytes, more than the 16777216"),
    (pair("k", STR, struct.pack("<Q", 1000) + b"\0" * 20), "The file is cut off"),
    (pair("k", ARR, struct.pack("<IQ", ARR, 1) + b"\0" * 20), "'k' is an array of arrays"),
    (pair("k", ARR, struct.pack("<IQ", 77, 1) + b"\0" * 20), "'k' is an array of the unknown type 77"),
    (pair("k", ARR, struct.pack("<IQ", I32, HUGE) + b"\0" * 20), f"'k' claims {HUGE} elements"),
    (pair("k", ARR, struct.pack("<IQ", I32, 2**28) + b"\0" * 20), "The file is cut off"),
    (pair("k", ARR, struct.pack("<IQ", STR, HUGE) + b"\0" * 20), f"'k' claims {HUGE} strings"),
    (pair("k", ARR, struct.pack("<IQ", STR, 2**20) + b"\0" * 20), "The file is cut off"),
    (pair("k", ARR, struct.pack("<IQQ", STR, 1, HUGE) + b"\0" * 20), "'k' claims to reach byte"),
    (pair("k", ARR, struct.pack("<IQQ", STR, 1, 900) + b"\0" * 20), "The file is cut off"),
    (
        pair("tokenizer.ggml.tokens", ARR, struct.pack("<IQQ", STR, 1, HUGE) + b"\0" * 20),
        f"'tokenizer.ggml.tokens' takes {HUGE + 8} bytes, more than any model needs",
    ),
]


@pytest.mark.parametrize(("raw", "message"), PAIR_PROBLEMS)
def test_damaged_metadata_is_named(tmp_path: Path, raw: bytes, message: str):
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + raw
    assert refusal(tmp_path, content).startswith(message)


def test_a_key_must_not_be_there_twice(tmp_path: Path):
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + pair("k", U32, 1) + pair("k", U32, 2)
    assert "The metadata key 'k' is there twice" in refusal(tmp_path, content)


@pytest.mark.parametrize(("pairs", "tensors"), [(HUGE, 0), (0, HUGE)])
def test_impossible_counts_are_refused_at_once(tmp_path: Path, pairs: int, tensors: int):
    content = gguf({}, tensor_count=tensors, pair_count=pairs)
    assert f"The header claims {HUGE} " in refusal(tmp_path, content)


@pytest.mark.parametrize(("pairs", "tensors"), [(60_000, 0), (0, 100_000)])
def test_counts_that_cannot_fit_are_refused_before_any_is_read(tmp_path: Path, pairs: int, tensors: int):
    assert "is cut off" in refusal(tmp_path, gguf({}, tensor_count=tensors, pair_count=pairs))


@pytest.mark.parametrize("alignment", [0, 1, 4, 24, 33])
def test_the_alignment_must_be_a_power_of_two(tmp_path: Path, alignment: int):
    message = refusal(tmp_path, tiny_model({"general.alignment": (U32, alignment)}))
    assert message.startswith(f"'general.alignment' is {alignment}, but must be a power of two")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("general.alignment", (STR, "32"), "'general.alignment' has the type str, but must be u32"),
        ("general.architecture", (U32, 1), "'general.architecture' has the type u32, but must be str"),
        ("split.no", (U32, 0), "'split.no' has the type u32, but must be u16"),
        ("split.count", array(I32, [1]), "'split.count' has the type arr, but must be u16"),
        ("split.tensors.count", (U16, 0), "'split.tensors.count' has the type u16, but must be i32"),
    ],
)
def test_keys_that_are_read_blindly_must_have_their_type(tmp_path: Path, key: str, value: Any, message: str):
    assert refusal(tmp_path, tiny_model({key: value})).startswith(message)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor("", (4,)), "The name of tensor 11 is '', which is no name"),
        (Tensor("a\0b", (4,)), "The name of tensor 11 is 'a\\x00b', which is no name"),
        (Tensor("n" * 64, (4,)), "the name of tensor 11 claims 64 bytes, more than the 63"),
        (Tensor("x", (1, 1, 1, 1, 1)), "The tensor 'x' has 5 dimensions, more than 4"),
        (Tensor("x", (0, 4)), "The tensor 'x' has the impossible shape [0, 4]"),
        (Tensor("x", (2**33, 2**33)), "The tensor 'x' has the impossible shape [8589934592, 8589934592]"),
        (Tensor("x", (2**63,)), "The tensor 'x' has the impossible shape"),
        (Tensor("x", (33, 2), TENSOR_Q4_0), "The tensor 'x' has rows of 33 elements, but Q4_0 stores blocks of 32"),
        (Tensor("x", (4, 1), offset=16), "The tensor 'x' lies at offset 16, not on a multiple of 32 bytes"),
        (Tensor("x", (4, 1), offset=2**40), f"The tensor 'x' lies at offset {2**40}, but"),
        (Tensor("x", (2**40, 4), TENSOR_I32), "The file is cut off: "),
        (Tensor("output_norm.weight", (32,)), "The tensor 'output_norm.weight' is there twice"),
    ],
)
def test_damaged_tensors_are_named(tmp_path: Path, tensor: Tensor, message: str):
    assert refusal(tmp_path, gguf(model_pairs(), [*model_tensors(), tensor])).startswith(message)


@pytest.mark.parametrize("number", [4, 5, 31, 36, 43, 2**32 - 1])
def test_types_that_were_removed_or_never_were_are_refused(tmp_path: Path, number: int):
    content = gguf(model_pairs(), [*model_tensors(), Tensor("marked.weight", (32, 1))])
    place = content.index(b"marked.weight") + len("marked.weight") + 4 + 16
    damaged = content[:place] + struct.pack("<I", number) + content[place + 4 :]
    assert refusal(tmp_path, damaged).startswith(f"The tensor 'marked.weight' has the unknown type {number}.")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UnusableModel, match=r"gone\.gguf: There is no such file\. Check the path\."):
        read_header(tmp_path / "gone.gguf")


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_not_a_file_is_not_opened(tmp_path: Path, kind: str):
    path = tmp_path / "x.gguf"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(UnusableModel, match="This is not a file"):
        read_header(path)


def test_a_file_without_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "m.gguf", tiny_model())

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # permissions do not bind root, who may run the tests
    with pytest.raises(UnusableModel, match="cannot be read: permission denied"):
        read_header(path)


def test_a_disk_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "m.gguf", tiny_model())

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(UnusableModel, match="Input/output error"):
        read_header(path)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "m.gguf", tiny_model())
    size = path.stat()
    os.truncate(path, 500)
    monkeypatch.setattr("os.fstat", lambda _: size)
    with pytest.raises(UnusableModel, match="The file became shorter while it was read"):
        read_header(path)


def test_a_file_that_was_changed_since_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", tiny_model())
    assert read_header(path) is read_header(path)
    assert refusal(tmp_path, b"nothing of the kind")
