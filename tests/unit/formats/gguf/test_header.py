from __future__ import annotations

import pickle
import time
from pathlib import Path

import pytest

from modelyard.hub import GgufArray, GgufHeader, read_header
from support.gguf_writer import (
    ARR,
    BOOL,
    F32,
    F64,
    I32,
    STR,
    TENSOR_F16,
    TENSOR_Q4_0,
    TENSOR_Q8_0,
    U8,
    U16,
    U32,
    U64,
    VOCABULARY,
    Tensor,
    array,
    gguf,
    model_pairs,
    model_tensors,
    shards,
    tiny_model,
    write,
)


@pytest.fixture
def header(tmp_path: Path) -> GgufHeader:
    return read_header(write(tmp_path / "tiny.gguf", tiny_model()))


def read(folder: Path, content: bytes) -> GgufHeader:
    return read_header(write(folder / "m.gguf", content))


def test_the_header_tells_what_the_model_is(header: GgufHeader, tmp_path: Path):
    assert header.version == 3
    assert header.architecture == "llama"
    assert header.name == "Tiny"
    assert header.context_length == 128
    assert header.block_count == 1
    assert header.role == "model"
    assert not header.is_projector
    assert not header.is_embedding_model
    assert header.split == (0, 1)
    assert header.file_size == (tmp_path / "tiny.gguf").stat().st_size


def test_arrays_are_described_and_not_held(header: GgufHeader):
    assert header.metadata["tokenizer.ggml.tokens"] == GgufArray("str", len(VOCABULARY))
    assert header.metadata["tokenizer.ggml.scores"] == GgufArray("f32", len(VOCABULARY))


def test_tensors_tell_where_their_bytes_are(header: GgufHeader):
    embeddings, norm, *_ = header.tensors
    assert (embeddings.name, embeddings.shape, embeddings.type) == ("token_embd.weight", (32, len(VOCABULARY)), "F32")
    assert (embeddings.offset, embeddings.size_bytes) == (0, 32 * 4 * len(VOCABULARY))
    assert norm.offset == embeddings.size_bytes
    assert header.size_bytes == sum(tensor.size for tensor in model_tensors())


def test_quantised_tensors_are_counted_in_blocks(tmp_path: Path):
    header = read(tmp_path, gguf(model_pairs(), model_tensors(kind=TENSOR_Q4_0)))
    assert header.tensors[0].size_bytes == len(VOCABULARY) * 18


def test_every_scalar_type_is_read(tmp_path: Path):
    values = {"a": (U8, 255), "b": (U64, 2**64 - 1), "c": (I32, -5), "d": (BOOL, True), "e": (F64, 0.5)}
    values |= {"f": (STR, "Grüße"), "g": (U16, 65535), "h": (F32, 0.25)}
    header = read(tmp_path, tiny_model(values))
    assert {key: header.metadata[key] for key in values} == {key: value for key, (_, value) in values.items()}


@pytest.mark.parametrize(
    ("file_type", "label"),
    [(3, "Q4_1"), (15, "Q4_K_M"), (1, "F16"), (32, "BF16"), (1024 + 7, "Q8_0"), (38, "MXFP4_MOE")],
)
def test_the_quantisation_is_what_the_file_says(tmp_path: Path, file_type: int, label: str):
    assert read(tmp_path, tiny_model({"general.file_type": (U32, file_type)})).quantization == label


@pytest.mark.parametrize("file_type", [None, (U32, 999), (STR, "Q4_K_M")])
def test_else_it_is_the_commonest_type_of_the_matrices(tmp_path: Path, file_type: tuple[int, object] | None):
    pairs = model_pairs()
    pairs.pop("general.file_type")
    if file_type:
        pairs["general.file_type"] = file_type
    embeddings, *rest = model_tensors(kind=TENSOR_Q8_0)
    tensors = [Tensor(embeddings.name, embeddings.shape, TENSOR_F16), *rest]
    assert read(tmp_path, gguf(pairs, tensors)).quantization == "Q8_0"


def test_without_matrices_there_is_no_quantisation(tmp_path: Path):
    assert read(tmp_path, gguf({"general.type": (STR, "imatrix")})).quantization == ""


@pytest.mark.parametrize(
    ("pairs", "role"),
    [
        ({"general.architecture": (STR, "clip")}, "mmproj"),
        ({"general.architecture": (STR, "clip"), "general.type": (STR, "mmproj")}, "mmproj"),
        ({"general.architecture": (STR, "llama"), "general.type": (STR, "adapter")}, "adapter"),
        ({"general.type": (STR, "imatrix")}, "imatrix"),
    ],
)
def test_a_file_that_is_no_model_is_read_and_says_so(tmp_path: Path, pairs: dict[str, tuple[int, str]], role: str):
    header = read(tmp_path, gguf(pairs))
    assert header.role == role
    assert header.is_projector == (role == "mmproj")
    assert header.context_length == header.block_count == 0


def test_an_encoder_is_an_embedding_model(tmp_path: Path):
    words = [f"w{index}" for index in range(120)]
    pairs = model_pairs("bert", words) | {"tokenizer.ggml.model": (STR, "bert")}
    pairs["tokenizer.ggml.token_type"] = array(I32, [1] * 120)
    assert read(tmp_path, gguf(pairs, model_tensors(120))).is_embedding_model


@pytest.mark.parametrize(("pooling", "embeds"), [(0, False), (1, True), (3, True)])
def test_pooling_makes_an_embedding_model(tmp_path: Path, pooling: int, embeds: bool):
    assert read(tmp_path, tiny_model({"llama.pooling_type": (U32, pooling)})).is_embedding_model == embeds


def test_a_later_shard_needs_no_description_of_the_model(tmp_path: Path):
    first, second = map(read_header, shards(tmp_path))
    assert (first.split, second.split) == ((0, 2), (1, 2))
    assert (second.architecture, second.context_length, second.name) == ("", 0, "")


def test_version_two_is_the_same_format(tmp_path: Path):
    assert read(tmp_path, gguf(model_pairs(), model_tensors(), version=2)).version == 2


def test_another_alignment_is_honoured(tmp_path: Path):
    pairs = model_pairs() | {"general.alignment": (U32, 128)}
    tensors = [*model_tensors(), Tensor("extra.weight", (4, 1)), Tensor("more.weight", (4, 1))]
    assert read(tmp_path, gguf(pairs, tensors, alignment=128)).tensors[-1].offset % 128 == 0


def test_the_padding_after_the_last_tensor_may_be_missing(tmp_path: Path):
    content = gguf(model_pairs(), [*model_tensors(), Tensor("extra.weight", (1, 1))])
    assert read(tmp_path, content[:-28]).tensors[-1].size_bytes == 4


def test_a_tensor_without_dimensions_is_one_element(tmp_path: Path):
    assert read(tmp_path, gguf(model_pairs(), [*model_tensors(), Tensor("scale", ())])).tensors[-1].size_bytes == 4


def test_heads_may_differ_from_layer_to_layer(tmp_path: Path):
    changes = {
        "llama.block_count": (U32, 3),
        "llama.attention.head_count": array(U32, [2, 0, 4]),
        "llama.attention.head_count_kv": array(I32, [1, 0, 4]),
    }
    assert read(tmp_path, tiny_model(changes)).block_count == 3


def test_a_header_can_be_pickled(header: GgufHeader):
    assert pickle.loads(pickle.dumps(header)) == header


def test_a_large_vocabulary_is_read_in_a_moment(tmp_path: Path):
    words = [*VOCABULARY, *(f"▁word{index}" for index in range(262_144 - len(VOCABULARY)))]
    pairs = model_pairs(vocabulary=words)
    pairs["tokenizer.ggml.merges"] = array(STR, ["a b"] * 500_000)
    path = write(tmp_path / "large.gguf", gguf(pairs, model_tensors()))
    started = time.perf_counter()
    header = read_header(path)
    # 0.2 s where it was written; the bound only has to catch an order of magnitude.
    assert time.perf_counter() - started < 2
    assert header.metadata["tokenizer.ggml.tokens"] == GgufArray("str", 262_144)


def test_strings_that_cross_the_reading_window_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("modelyard.formats.gguf.reader.WINDOW_BYTES", 37)
    changes = {"tokenizer.ggml.merges": array(STR, ["ab cd" * 30, "", "x y"] * 20)}
    header = read(tmp_path, tiny_model(changes))
    assert header.metadata["tokenizer.chat_template"] == "{{ messages }}"
    assert header.metadata["tokenizer.ggml.merges"] == GgufArray("str", 60)
    assert len(header.tensors) == len(model_tensors())


def test_an_empty_array_is_fine(tmp_path: Path):
    header = read(tmp_path, tiny_model({"general.tags": array(STR, []), "x": (ARR, b"\x05\0\0\0" + bytes(8))}))
    assert header.metadata["general.tags"] == GgufArray("str", 0)
    assert header.metadata["x"] == GgufArray("i32", 0)
