"""Files that are well formed, and that llama.cpp would abort the whole process on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import UnusableModel
from modelyard.hub import GgufHeader, read_header
from support.gguf_writer import (
    BLOCKS,
    F32,
    I32,
    STR,
    TENSOR_F16,
    TENSOR_I32,
    TENSOR_Q8_K,
    U16,
    U32,
    U64,
    VOCABULARY,
    Pairs,
    Tensor,
    array,
    gguf,
    model_pairs,
    model_tensors,
    tiny_model,
    write,
)

LLAMA_TOKENS = len(VOCABULARY)


def read(folder: Path, content: bytes) -> GgufHeader:
    return read_header(write(folder / "m.gguf", content))


def refuse(folder: Path, content: bytes, message: str) -> None:
    with pytest.raises(UnusableModel) as refused:
        read(folder, content)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": None}, "does not say which architecture"),
        ({"llama.block_count": None}, "The header lacks 'llama.block_count'"),
        ({"llama.block_count": (U32, 0)}, "'llama.block_count' is 0, but must be 1 to 512"),
        ({"llama.block_count": (U32, 513)}, "'llama.block_count' is 513"),
        ({"llama.block_count": (U64, 1)}, "'llama.block_count' has the type u64, but must be u32"),
        ({"llama.nextn_predict_layers": (U32, 2)}, "is 2, but the model has 1 layers"),
        ({"llama.context_length": (U32, 0)}, "'llama.context_length' is 0"),
        ({"llama.embedding_length": None}, "The header lacks 'llama.embedding_length'"),
        ({"llama.expert_count": (U32, 1025)}, "'llama.expert_count' is 1025, more than the 1024"),
        ({"llama.expert_count": (U32, 4)}, "'llama.expert_used_count' is 0 of 4 experts"),
        ({"llama.expert_used_count": (U32, 1)}, "'llama.expert_used_count' is 1 of 0 experts"),
        ({"llama.expert_group_count": (U32, 1)}, "0 experts cannot be routed in 1 groups"),
        ({"llama.attention.head_count": None}, "'llama.attention.head_count' is missing or 0"),
        ({"llama.attention.head_count": (U32, 0)}, "'llama.attention.head_count' is missing or 0"),
        ({"llama.attention.head_count": array(U32, [2, 2])}, "has 2 elements of u32, but must have 1 of u32"),
        ({"llama.attention.head_count": array(STR, ["2"])}, "has 1 elements of str, but must have 1 of u32"),
        ({"llama.attention.head_count_kv": (U32, 0)}, "'llama.attention.head_count_kv' is 0"),
        ({"llama.attention.head_count_kv": (U32, 3)}, "which do not divide among 3 key-value heads"),
        ({"llama.rope.dimension_count": (U32, 15)}, "'llama.rope.dimension_count' is odd"),
        ({"llama.rope.scaling.type": (STR, "cubic")}, "is 'cubic', but must be one of none, linear, yarn, longrope"),
        ({"llama.pooling_type": (U32, 5)}, "'llama.pooling_type' is 5, but must be 0 to 4"),
        ({"llama.attention.layer_norm_rms_epsilon": (F32, float("nan"))}, "is nan, but must be a small positive"),
        ({"llama.attention.layer_norm_epsilon": (F32, -1.0)}, "is -1.0, but must be a small positive"),
        ({"llama.attention.group_norm_epsilon": (STR, "x")}, "is x, but must be a small positive"),
        ({"llama.full_attention_interval": (U32, 0)}, "'llama.full_attention_interval' is 0"),
        ({"split.no": (U16, 1), "split.count": (U16, 1)}, "'split.no' is 1, but there are only 1 shards"),
    ],
)
def test_impossible_hyperparameters_are_refused(tmp_path: Path, changes: Pairs, message: str):
    refuse(tmp_path, tiny_model(changes), message)


@pytest.mark.parametrize(("groups", "used"), [(8, 1), (3, 1), (2, 0), (2, 2)])
def test_experts_must_divide_into_their_groups(tmp_path: Path, groups: int, used: int):
    experts: Pairs = {"llama.expert_count": (U32, 8), "llama.expert_used_count": array(I32, [2])}
    changes = {**experts, "llama.expert_group_count": (U32, groups), "llama.expert_group_used_count": (U32, used)}
    refuse(tmp_path, tiny_model(changes), f"8 experts cannot be routed in {groups} groups, {used} of them used")


def test_experts_in_groups_are_fine(tmp_path: Path):
    changes = {f"llama.expert_{key}": (U32, n) for key, n in
               {"count": 8, "used_count": 2, "group_count": 4, "group_used_count": 2}.items()}  # fmt: skip
    assert read(tmp_path, tiny_model(changes)).architecture == "llama"


def other(architecture: str, changes: Pairs) -> bytes:
    return gguf(model_pairs(architecture) | changes, model_tensors())


def experts(architecture: str, gating: int | None = None) -> Pairs:
    pairs: Pairs = {f"{architecture}.expert_count": (U32, 4), f"{architecture}.expert_used_count": (U32, 2)}
    return pairs | ({} if gating is None else {f"{architecture}.expert_gating_func": (U32, gating)})


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("smallthinker", {}, "'smallthinker.expert_count' is missing or 0"),
        ("jamba", {"jamba.ssm.inner_size": (U32, 32)}, "must be twice 'embedding_length' (32)"),
        ("deepseek2", {"deepseek2.attention.key_length_mla": (U32, 16)}, "is 16, not more than the 16 rotated"),
        ("qwen2vl", {"qwen2vl.rope.dimension_sections": array(I32, [0, 0, 0, 1])}, "sections' is missing or 0"),
        ("qwen2vl", {"qwen2vl.rope.dimension_sections": array(I32, [1])}, "must have 4 of u32"),
        ("minimax-m2", experts("minimax-m2"), "'minimax-m2.expert_gating_func' is missing or 0, but must be 1 to 4"),
        ("llama", experts("llama", gating=9), "'llama.expert_gating_func' is 9, but must be 1 to 4"),
        ("glm-dsa", {"glm-dsa.attention.indexer.key_length": (U32, 32)}, "is 32, but must be a multiple of 64"),
    ],
)
def test_single_architectures_have_rules_of_their_own(tmp_path: Path, architecture: str, changes: Pairs, message: str):
    refuse(tmp_path, other(architecture, changes), message)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("qwen2vl", {"qwen2vl.rope.dimension_sections": array(I32, [4, 2, 2, 0])}),
        ("mamba", {"mamba.attention.head_count": (U32, 0), "mamba.attention.head_count_kv": (U32, 0)}),
        ("hunyuan-dense", {"hunyuan-dense.expert_count": (U32, 1), "hunyuan-dense.expert_used_count": (U32, 0)}),
        ("deepseek2", {"deepseek2.attention.key_length_mla": (U32, 32)}),
        ("minimax-m2", experts("minimax-m2", gating=2)),
        ("mixtral", experts("mixtral")),
        ("glm-dsa", {"glm-dsa.attention.indexer.key_length": (U32, 128)}),
    ],
)
def test_what_is_particular_to_an_architecture_is_accepted(tmp_path: Path, architecture: str, changes: Pairs):
    assert read(tmp_path, other(architecture, changes)).architecture == architecture


def test_a_vocabulary_without_weights_is_no_model(tmp_path: Path):
    refuse(tmp_path, gguf(model_pairs()), "The file has no tensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer.ggml.model": None}, "The file has no tokenizer"),
        ({"tokenizer.ggml.model": (STR, "none")}, "The file has no tokenizer"),
        ({"tokenizer.ggml.tokens": None}, "The file has no vocabulary"),
        ({"tokenizer.ggml.tokens": array(I32, [1])}, "must be an array of strings"),
        ({"tokenizer.ggml.tokens": array(STR, [])}, "must be an array of strings"),
        ({"tokenizer.ggml.tokens": (STR, "a")}, "must be an array of strings"),
        ({"tokenizer.ggml.scores": array(F32, [0.0])}, f"'tokenizer.ggml.scores' has 1 entries for {LLAMA_TOKENS}"),
        ({"tokenizer.ggml.scores": array(STR, ["0"])}, "'tokenizer.ggml.scores' must be an array of f32 or i32"),
        ({"tokenizer.ggml.token_type": array(I32, [1])}, "'tokenizer.ggml.token_type' has 1 entries"),
        ({"tokenizer.ggml.token_type": array(F32, [1.0])}, "'tokenizer.ggml.token_type' must be an array of i32"),
        ({"tokenizer.ggml.token_type": (U32, 1)}, "'tokenizer.ggml.token_type' must be an array of i32"),
    ],
)
def test_a_broken_tokenizer_is_refused(tmp_path: Path, changes: Pairs, message: str):
    refuse(tmp_path, tiny_model(changes), message)


def test_a_tokenizer_needs_neither_scores_nor_types(tmp_path: Path):
    header = read(tmp_path, tiny_model({"tokenizer.ggml.scores": None, "tokenizer.ggml.token_type": None}))
    assert "tokenizer.ggml.scores" not in header.metadata


def vocabulary(words: list[str], **changes: Any) -> bytes:
    pairs = model_pairs(vocabulary=words)
    pairs["tokenizer.ggml.token_type"] = array(I32, changes.pop("types", [1] * len(words)))
    for key, change in changes.items():
        pairs[f"tokenizer.ggml.{key}"] = change
    return gguf(pairs, model_tensors(len(words)))


@pytest.mark.parametrize(
    ("words", "twice"),
    [
        ([*VOCABULARY, "a"], "'a' twice, the second time at 264"),
        ([*VOCABULARY, "e\0f", "e"], "'e' twice, the second time at 265"),
        ([*VOCABULARY, "[EMPTY_265]", ""], "'[EMPTY_265]' twice, the second time at 265"),
    ],
)
def test_tokens_that_llama_cpp_takes_for_the_same_are_refused(tmp_path: Path, words: list[str], twice: str):
    refuse(tmp_path, vocabulary(words), f"'tokenizer.ggml.tokens' has {twice}")


def test_one_empty_token_is_fine(tmp_path: Path):
    assert read(tmp_path, vocabulary([*VOCABULARY, "", "e\0f"])).architecture == "llama"


def test_a_sentencepiece_vocabulary_must_cover_all_bytes(tmp_path: Path):
    words = [word for word in VOCABULARY if word != "<0x7A>"]
    refuse(tmp_path, vocabulary(words), "The vocabulary lacks the token <0x7A>")
    assert read(tmp_path, vocabulary([*words, "z"])).architecture == "llama"


def test_a_wordpiece_vocabulary_has_no_bytes(tmp_path: Path):
    words = [f"w{index}" for index in range(104)]
    broken = vocabulary(words, types=[6] * 104, model=(STR, "bert"))
    refuse(tmp_path, broken, "marks tokens as bytes")
    assert read(tmp_path, vocabulary(words, model=(STR, "bert"))).architecture == "llama"


@pytest.mark.parametrize("model", ["gpt2", "hybriddna"])
def test_a_tokenizer_that_ends_the_process_on_two_blanks_is_refused(tmp_path: Path, model: str):
    parted = {"tokenizer.ggml.model": (STR, model), "tokenizer.ggml.pre": (STR, "whitespace")}
    refuse(tmp_path, tiny_model(parted), "ends llama.cpp's process on two blanks")
    dropped = {**parted, "tokenizer.ggml.model": (STR, "whitespace")}
    assert read(tmp_path, tiny_model(dropped)).architecture == "llama"


SMALL = ["a", "b", "c"]
TRUE = (7, True)


@pytest.mark.parametrize(
    ("words", "changes", "missing"),
    [
        (SMALL, {"add_bos_token": TRUE, "bos_token_id": (U32, 9)}, "'tokenizer.ggml.bos_token_id' is 9"),
        (SMALL, {"add_eos_token": TRUE, "eos_token_id": (U32, 9)}, "'tokenizer.ggml.eos_token_id' is 9"),
        (SMALL, {"pre": (STR, "llama3"), "bos_token_id": (STR, "a")}, "'tokenizer.ggml.bos_token_id' is a"),
        (SMALL, {"pre": (STR, "gemma4"), "bos_token_id": (U32, 9), "add_bos_token": (7, False)}, "bos_token_id' is 9"),
    ],
)
def test_a_token_that_is_added_to_every_prompt_must_exist(
    tmp_path: Path, words: list[str], changes: dict[str, Any], missing: str
):
    refuse(tmp_path, vocabulary(words, model=(STR, "gpt2"), **changes), missing)


def test_a_wordpiece_tokenizer_adds_a_separator(tmp_path: Path):
    words = [f"w{index}" for index in range(50)]
    refuse(tmp_path, vocabulary(words, model=(STR, "bert")), "'tokenizer.ggml.seperator_token_id' is missing")


def test_an_id_out_of_range_falls_back_on_the_default(tmp_path: Path):
    header = read(tmp_path, tiny_model({"tokenizer.ggml.bos_token_id": (U32, 2**32 - 1)}))
    assert header.metadata["tokenizer.ggml.bos_token_id"] == 2**32 - 1


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor("x.weight", (256, 1), TENSOR_Q8_K), "'x.weight' has the type Q8_K, which weights cannot have"),
        (Tensor("output.weight", (32, LLAMA_TOKENS), TENSOR_I32), "'output.weight' has the type I32"),
        (Tensor("rope_freqs.weight", (8,), TENSOR_F16), "'rope_freqs.weight' has the type F16"),
    ],
)
def test_tensors_that_cannot_be_computed_with_are_refused(tmp_path: Path, tensor: Tensor, message: str):
    assert tensor.type in BLOCKS
    refuse(tmp_path, gguf(model_pairs(), [*model_tensors(), tensor]), message)


def test_a_projector_may_have_what_a_model_may_not(tmp_path: Path):
    pairs = {"general.architecture": (STR, "clip")}
    assert read(tmp_path, gguf(pairs, [Tensor("v.bias", (8,), TENSOR_F16)])).is_projector
