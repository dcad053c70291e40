"""Small whole models of many architectures, with random weights.

The tensors of an architecture are not written down here: llama.cpp is given a file without any, and names the first
that it misses, and the shape that it must have, until it loads the file.
"""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from fuzz.children import run_child
from fuzz.gguf_file import Array, GgufFile, Scalar, Tensor, number, read_gguf, real, text, texts
from modelyard.errors import UnusableModel
from modelyard.formats.gguf import constants as gguf
from support.gguf_writer import VOCABULARY

WIDTH: Final = 64
LAYERS: Final = 2
# Tokens that are left of a vocabulary: what goes to the tokenizer is as odd with these.
CUT_VOCABULARY: Final = 2048
GROW_CPU_S: Final = 30.0
_MAX_TRIES: Final = 400

# Of general.architecture, those that generate text or vectors from tokens alone, of every family of graphs that
# llama.cpp has. Source: llama.cpp, LLM_ARCH_NAMES in src/llama-arch.cpp.
ARCHITECTURES: Final = (
    "llama", "llama4", "deci", "falcon", "grok", "gpt2", "gptneox", "mpt", "baichuan", "starcoder", "refact", "bert",
    "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert", "bloom",
    "stablelm", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "qwen3next", "qwen35", "qwen35moe",
    "phi2", "phi3", "phimoe", "plamo", "plamo2", "plamo3", "codeshell", "orion", "internlm2", "minicpm", "minicpm3",
    "gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "gemma-embedding", "starcoder2", "mamba", "mamba2", "jamba",
    "falcon-h1", "xverse", "command-r", "cohere2", "dbrx", "olmo", "olmo2", "olmoe", "openelm", "arctic", "deepseek",
    "deepseek2", "chatglm", "glm4", "glm4moe", "bitnet", "jais", "nemotron", "nemotron_h", "exaone", "exaone4",
    "rwkv6qwen2", "arwkv7", "granite", "granitemoe", "granitehybrid", "chameleon", "plm",
    "bailingmoe", "bailingmoe2", "dots1", "arcee", "afmoe", "ernie4_5", "ernie4_5-moe", "hunyuan-moe",
    "hunyuan-dense", "smollm3", "gpt-oss", "lfm2", "lfm2moe", "dream", "llada", "seed_oss",
    "grovemoe", "minimax-m2", "mistral3", "kimi-linear", "t5encoder", "llama-embed",
)  # fmt: skip

# What llama.cpp may ask for, by the part of the key behind the architecture. Small numbers that fit one another.
_NUMBERS: Final[Mapping[str, int]] = {
    "context_length": 256, "block_count": LAYERS, "embedding_length": WIDTH, "feed_forward_length": 96,
    "attention.head_count": 4, "attention.head_count_kv": 2, "rope.dimension_count": 16, "attention.key_length": 16,
    "attention.value_length": 16, "ssm.conv_kernel": 4, "ssm.inner_size": 2 * WIDTH, "ssm.state_size": 16,
    "ssm.time_step_rank": 8, "ssm.group_count": 1, "wkv.head_size": 16, "full_attention_interval": 2,
    "token_shift_count": 2, "time_mix_extra_dim": 8, "time_decay_extra_dim": 8, "attention.decay_lora_rank": 8,
    "attention.iclr_lora_rank": 8, "attention.value_residual_mix_lora_rank": 8, "attention.gate_lora_rank": 8,
    "shortconv.l_cache": 3, "attention.sliding_window": 32, "attention.q_lora_rank": 16,
    "attention.kv_lora_rank": 16, "attention.relative_buckets_count": 32, "token_count": len(VOCABULARY),
    "attention.key_length_mla": 24, "attention.value_length_mla": 16, "interleave_moe_layer_step": 1,
    "embedding_length_per_layer_input": 16, "kda.head_dim": 16, "attention.key_length_swa": 16,
    "attention.value_length_swa": 16, "rope.dimension_count_swa": 16, "experts_per_group": 2,
    "attention.shared_kv_layers": 0,
}  # fmt: skip
_EXPERT_NUMBERS: Final[Mapping[str, int]] = {
    "expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32, "expert_gating_func": 1,
    "expert_shared_feed_forward_length": 32, "expert_shared_count": 1, "leading_dense_block_count": 1,
    "expert_chunk_feed_forward_length": 32, "moe_every_n_layers": 2,
}  # fmt: skip
_REALS: Final[Mapping[str, float]] = {
    "attention.layer_norm_epsilon": 1e-5, "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 10000.0,
    "attention.clamp_kqv": 8.0, "attention.max_alibi_bias": 8.0, "logit_scale": 1.0, "residual_scale": 1.0,
    "embedding_scale": 1.0, "attention.scale": 0.25, "expert_weights_scale": 1.0, "expert_group_scale": 1.0,
    "router_logit_softcapping": 30.0, "attn_logit_softcapping": 30.0, "final_logit_softcapping": 30.0,
    "attention.output_scale": 1.0, "attention.group_norm_epsilon": 1e-5,
}  # fmt: skip
_NEEDS: Final[Mapping[str, Mapping[str, int]]] = {
    "deepseek2": {"attention.key_length_mla": 24, "attention.value_length_mla": 16, "rope.dimension_count": 8},
    "mamba": {"attention.head_count": 0},
    "mamba2": {"attention.head_count": 0, "ssm.time_step_rank": 8},
}
_SECTIONS: Final = frozenset({"qwen2vl", "qwen35", "qwen35moe"})
_WITH_EXPERTS: Final = frozenset({
    "llama4", "grok", "nomic-bert-moe", "qwen2moe", "qwen3moe", "qwen3next", "qwen35moe", "phimoe", "jamba", "dbrx",
    "olmoe", "arctic", "deepseek", "deepseek2", "glm4moe", "granitemoe", "granitehybrid", "bailingmoe",
    "bailingmoe2", "dots1", "afmoe", "ernie4_5-moe", "hunyuan-moe", "gpt-oss", "lfm2moe", "grovemoe",
    "minimax-m2", "kimi-linear",
})  # fmt: skip
_WORDPIECE: Final = frozenset({"bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2"})

_MISSING_KEY: Final = re.compile(r"key not found in model: ([^\s;]+)")
_MISSING_TENSOR: Final = re.compile(r"missing tensor '([^']+)'|tensor '([^']+)' not found")
_WRONG_SHAPE: Final = re.compile(r"tensor '([^']+)' has wrong shape; expected ([\d, ]+), got")

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n{% endfor %}<s>assistant\n"
)


class NotGrown(Exception):
    """llama.cpp did not come to accept a model of the architecture."""


@functools.cache
def tiny_model(architecture: str) -> GgufFile:
    """A whole model of the architecture: two layers, 64 wide, 264 tokens.

    Raises:
        NotGrown: llama.cpp does not accept it, with what it says last.
    """
    ended = run_child(_grow, architecture, cpu_s=GROW_CPU_S)
    if not isinstance(ended.value, GgufFile):
        raise NotGrown(f"{architecture}: {ended.end or ended.value} ({ended.step})")
    return ended.value


@functools.cache
def cut_model(path: Path, layers: int = LAYERS, vocabulary: int = CUT_VOCABULARY) -> GgufFile:
    """A real model with its first layers and tokens alone."""
    whole = read_gguf(path)
    architecture = whole.architecture
    pairs = {
        key: replace(value, values=value.values[:vocabulary])
        if isinstance(value, Array) and key in ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type")
        else value
        for key, value in whole.pairs.items()
    }
    tokens = set(pairs["tokenizer.ggml.tokens"].values)  # type: ignore[union-attr]
    merges = pairs["tokenizer.ggml.merges"]
    assert isinstance(merges, Array)
    pairs["tokenizer.ggml.merges"] = texts(one for one in merges.values if one.replace(b" ", b"") in tokens)
    pairs[f"{architecture}.block_count"] = number(layers)
    pairs.pop(f"{architecture}.vocab_size", None)
    kept = []
    for tensor in whole.tensors:
        match = re.match(rb"blk\.(\d+)\.", tensor.name)
        if match and int(match[1]) >= layers:
            continue
        if tensor.name in (b"token_embd.weight", b"output.weight"):
            bytes_of_row = len(tensor.content) // tensor.shape[1]
            shape = (tensor.shape[0], vocabulary)
            kept.append(replace(tensor, shape=shape, content=tensor.content[: vocabulary * bytes_of_row]))
        else:
            kept.append(tensor)
    return GgufFile(pairs, tuple(kept))


@functools.cache
def vocabulary_of(path: Path) -> GgufFile:
    """A real vocabulary without weights."""
    return GgufFile(read_gguf(path).pairs, ())


def random_weights(name: bytes, shape: tuple[int, ...]) -> bytes:
    """32-bit floats: about 1 for norms, small for all else. The same for the same tensor."""
    rng = np.random.default_rng(list(name))
    values = rng.standard_normal(int(np.prod(shape)), dtype=np.float32) * np.float32(0.1)
    if b"norm" in name and name.endswith(b"weight"):
        values += 1
    return bytes(values.tobytes())


def _grow(report: Callable[[str], None], architecture: str) -> GgufFile | str:
    """The model, or what llama.cpp said last."""
    # Imported here: the parent does not load llama.cpp.
    from modelyard.engine.llama import Weights

    model = _first(architecture)
    said = ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.gguf"
        for _ in range(_MAX_TRIES):
            path.write_bytes(model.content())
            try:
                weights = Weights([path], on_progress=lambda _: True, are_repacked=False)
            except UnusableModel as refusal:
                said = str(refusal)
                report(said[-200:])
                grown = _mended(model, said)
                if grown is None:
                    return said
                model = grown
            else:
                weights.free()
                return model
    return said


def _mended(model: GgufFile, said: str) -> GgufFile | None:
    """The model with what llama.cpp asks for; None where that is not known."""
    architecture = model.architecture
    if found := _MISSING_KEY.search(said):
        value = _value_of(found[1].removeprefix(f"{architecture}."), architecture)
        return None if value is None or found[1] in model.pairs else model.with_pair(found[1], value)
    if found := _MISSING_TENSOR.search(said):
        name = (found[1] or found[2]).encode()
        # Most layers are like the first one.
        like = name.replace(b"blk.1.", b"blk.0.")
        shape = next((tensor.shape for tensor in model.tensors if tensor.name == like), (WIDTH, 96))
        return replace(model, tensors=(*model.tensors, _tensor(name, shape)))
    if found := _WRONG_SHAPE.search(said):
        name, shape = found[1].encode(), tuple(map(int, found[2].split(",")))
        if any(tensor.name == name and tensor.shape == shape for tensor in model.tensors):
            return None
        while len(shape) > 1 and shape[-1] == 1:
            shape = shape[:-1]
        tensors = [_tensor(name, shape) if tensor.name == name else tensor for tensor in model.tensors]
        return replace(model, tensors=tuple(tensors))
    return None


def _tensor(name: bytes, shape: tuple[int, ...]) -> Tensor:
    return Tensor(name, shape, 0, random_weights(name, shape))


def _value_of(suffix: str, architecture: str) -> Scalar | Array | None:
    if suffix == "rope.dimension_sections":
        return Array(gguf.INT32, (4, 2, 2, 0))
    if suffix == "attention.sliding_window_pattern":
        return Array(gguf.BOOL, (True, False))
    if suffix == "rope.scaling.type":
        return text("none")
    numbers = {**_NUMBERS, **_EXPERT_NUMBERS, **_NEEDS.get(architecture, {})}
    if suffix in numbers:
        return number(numbers[suffix])
    if suffix in _REALS:
        return real(_REALS[suffix])
    if suffix in ("attention.causal", "use_parallel_residual", "expert_weights_norm"):
        return Scalar(gguf.BOOL, True)
    return None


def _first(architecture: str) -> GgufFile:
    """What every model has."""
    numbers: dict[str, int] = {
        suffix: _NUMBERS[suffix]
        for suffix in (
            "context_length",
            "block_count",
            "embedding_length",
            "feed_forward_length",
            "attention.head_count",
            "attention.head_count_kv",
        )
    }
    if architecture in _WITH_EXPERTS:
        numbers |= {suffix: _EXPERT_NUMBERS[suffix] for suffix in ("expert_count", "expert_used_count")}
    numbers |= _NEEDS.get(architecture, {})
    model: dict[str, Scalar | Array] = {
        "general.architecture": text(architecture),
        "general.name": text("Tiny"),
        **{f"{architecture}.{suffix}": number(value) for suffix, value in numbers.items()},
        f"{architecture}.attention.layer_norm_rms_epsilon": real(1e-5),
        f"{architecture}.attention.layer_norm_epsilon": real(1e-5),
        "tokenizer.ggml.token_type_count": number(2),
        **(_wordpiece() if architecture in _WORDPIECE else _sentencepiece()),
    }
    if architecture in _SECTIONS:
        model[f"{architecture}.rope.dimension_sections"] = Array(gguf.INT32, (4, 2, 2, 0))
    return GgufFile(model, ())


def _sentencepiece() -> dict[str, Any]:
    types = (2, 3, 3, *[6] * 256, *[1] * (len(VOCABULARY) - 259))
    return {
        "tokenizer.ggml.model": text("llama"),
        "tokenizer.ggml.tokens": texts(VOCABULARY),
        "tokenizer.ggml.scores": Array(gguf.FLOAT32, (0.0,) * len(VOCABULARY)),
        "tokenizer.ggml.token_type": Array(gguf.INT32, types),
        "tokenizer.ggml.bos_token_id": number(1),
        "tokenizer.ggml.eos_token_id": number(2),
        "tokenizer.chat_template": text(CHAT_TEMPLATE),
    }


def _wordpiece() -> dict[str, Any]:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"▁{chr(letter)}" for letter in range(97, 123)), "a", "b"]
    return {
        "tokenizer.ggml.model": text("bert"),
        "tokenizer.ggml.tokens": texts(words),
        "tokenizer.ggml.token_type": Array(gguf.INT32, (3,) * 4 + (1,) * (len(words) - 4)),
        "tokenizer.ggml.padding_token_id": number(0),
        "tokenizer.ggml.unknown_token_id": number(1),
        "tokenizer.ggml.bos_token_id": number(2),
        "tokenizer.ggml.seperator_token_id": number(3),
    }
