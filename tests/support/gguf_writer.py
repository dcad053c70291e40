"""Writes GGUF files of a few kilobytes: by default a llama with one layer that llama.cpp loads and runs."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
LAYOUTS = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q", I64: "<q"}
LAYOUTS[F64] = "<d"
TENSOR_F32, TENSOR_F16, TENSOR_Q4_0, TENSOR_Q8_0, TENSOR_Q8_K, TENSOR_I32 = 0, 1, 2, 8, 15, 26
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 8: (32, 34), 15: (256, 292), 26: (1, 4), 12: (256, 144)}


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: Sequence[int]
    type: int = TENSOR_F32
    offset: int | None = None  # None: the next one

    @property
    def size(self) -> int:
        elements, size = BLOCKS[self.type]
        count = 1
        for dimension in self.shape:
            count *= dimension
        return count // elements * size


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def scalar(kind: int, value: Any) -> bytes:
    return string(value) if kind == STR else struct.pack(LAYOUTS[kind], value)


def array(kind: int, values: Sequence[Any]) -> tuple[int, bytes]:
    packed = b"".join(scalar(kind, value) for value in values)
    return ARR, struct.pack("<IQ", kind, len(values)) + packed


def pair(key: str | bytes, kind: int, value: Any) -> bytes:
    return string(key) + struct.pack("<I", kind) + (value if isinstance(value, bytes) else scalar(kind, value))


VOCABULARY = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "c", "d"]

Pairs = dict[str, tuple[int, Any]]


def model_pairs(architecture: str = "llama", vocabulary: Sequence[str] = VOCABULARY) -> Pairs:
    types = [2, 3, 3, *[6] * 256][: len(vocabulary)]
    return {
        "general.architecture": (STR, architecture),
        "general.name": (STR, "Tiny"),
        "general.file_type": (U32, 0),
        f"{architecture}.context_length": (U32, 128),
        f"{architecture}.block_count": (U32, 1),
        f"{architecture}.embedding_length": (U32, 32),
        f"{architecture}.feed_forward_length": (U32, 32),
        f"{architecture}.attention.head_count": (U32, 2),
        f"{architecture}.attention.head_count_kv": (U32, 1),
        f"{architecture}.attention.layer_norm_rms_epsilon": (F32, 1e-5),
        f"{architecture}.rope.dimension_count": (U32, 16),
        "tokenizer.ggml.model": (STR, "llama"),
        "tokenizer.ggml.tokens": array(STR, vocabulary),
        "tokenizer.ggml.scores": array(F32, [0.0] * len(vocabulary)),
        "tokenizer.ggml.token_type": array(I32, types + [1] * (len(vocabulary) - len(types))),
        "tokenizer.ggml.bos_token_id": (U32, 1),
        "tokenizer.ggml.eos_token_id": (U32, 2),
        "tokenizer.chat_template": (STR, "{{ messages }}"),
    }


def model_tensors(vocabulary: int = len(VOCABULARY), kind: int = TENSOR_F32) -> list[Tensor]:
    layer = {"attn_q": (32, 32), "attn_k": (32, 16), "attn_v": (32, 16), "attn_output": (32, 32)}
    layer |= {"ffn_gate": (32, 32), "ffn_up": (32, 32), "ffn_down": (32, 32)}
    return [
        Tensor("token_embd.weight", (32, vocabulary), kind),
        Tensor("output_norm.weight", (32,)),
        Tensor("blk.0.attn_norm.weight", (32,)),
        Tensor("blk.0.ffn_norm.weight", (32,)),
        *(Tensor(f"blk.0.{name}.weight", shape, kind) for name, shape in layer.items()),
    ]


def gguf(
    pairs: Mapping[str, tuple[int, Any]],
    tensors: Sequence[Tensor] = (),
    *,
    version: int = 3,
    alignment: int = 32,
    tensor_count: int | None = None,
    pair_count: int | None = None,
) -> bytes:
    """The bytes of a file; counts that are given are written as they are, right or wrong."""
    head = b"GGUF" + struct.pack(
        "<IQQ",
        version,
        len(tensors) if tensor_count is None else tensor_count,
        len(pairs) if pair_count is None else pair_count,
    )
    head += b"".join(pair(key, kind, value) for key, (kind, value) in pairs.items())
    data = b""
    for tensor in tensors:
        offset = len(data) if tensor.offset is None else tensor.offset
        head += string(tensor.name) + struct.pack("<I", len(tensor.shape))
        head += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape) + struct.pack("<IQ", tensor.type, offset)
        if tensor.size < 1 << 20:
            data += bytes(tensor.size)
            data += bytes(-len(data) % alignment)
    return head + bytes(-len(head) % alignment) + data


def tiny_model(changes: Mapping[str, tuple[int, Any] | None] | None = None) -> bytes:
    """A whole model. Changes: a key and its new value, or None to leave the key out."""
    pairs = model_pairs()
    for key, change in (changes or {}).items():
        if change is None:
            del pairs[key]
        else:
            pairs[key] = change
    return gguf(pairs, model_tensors())


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def shards(folder: Path, stem: str = "tiny", count: int = 2) -> list[Path]:
    """A tiny model in several files, as llama.cpp's gguf-split writes it: only the first one describes the model."""
    tensors = model_tensors()
    size = -(-len(tensors) // count)
    paths = []
    for index in range(count):
        pairs = model_pairs() if index == 0 else {}
        pairs |= {"split.no": (U16, index), "split.count": (U16, count)}
        pairs["split.tensors.count"] = (I32, len(tensors))
        content = gguf(pairs, tensors[index * size : (index + 1) * size])
        paths.append(write(folder / f"{stem}-{index + 1:05d}-of-{count:05d}.gguf", content))
    return paths


ENCODER_VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(28))]


def tiny_encoder(changes: Mapping[str, tuple[int, Any] | None] | None = None) -> bytes:
    """A whole BERT of one layer, for inputs of up to 32 tokens. Changes are as of ``tiny_model``."""
    pairs, tensors = tiny_encoder_parts()
    changed = {**pairs, **(changes or {})}
    return gguf({key: value for key, value in changed.items() if value is not None}, tensors)


def tiny_encoder_parts() -> tuple[dict[str, tuple[int, Any]], list[Tensor]]:
    """What ``tiny_encoder`` is made of."""
    pairs: dict[str, tuple[int, Any]] = {
        "general.architecture": (STR, "bert"),
        "bert.block_count": (U32, 1),
        "bert.context_length": (U32, 32),
        "bert.embedding_length": (U32, 32),
        "bert.feed_forward_length": (U32, 64),
        "bert.attention.head_count": (U32, 4),
        "bert.attention.layer_norm_epsilon": (F32, 1e-5),
        "bert.attention.causal": (BOOL, False),
        "bert.pooling_type": (U32, 1),
        "tokenizer.ggml.model": (STR, "bert"),
        "tokenizer.ggml.token_type_count": (U32, 2),
        "tokenizer.ggml.tokens": array(STR, ENCODER_VOCABULARY),
        "tokenizer.ggml.token_type": array(I32, [3] * 4 + [1] * 28),
        "tokenizer.ggml.padding_token_id": (U32, 0),
        "tokenizer.ggml.unknown_token_id": (U32, 1),
        "tokenizer.ggml.bos_token_id": (U32, 2),
        "tokenizer.ggml.seperator_token_id": (U32, 3),
    }
    layer = {"attn_q": 32, "attn_k": 32, "attn_v": 32, "attn_output": 32, "ffn_up": 64}
    norms = ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm")
    tensors = [
        Tensor("position_embd.weight", (32, 32)),
        Tensor("token_types.weight", (32, 2)),
        Tensor("token_embd.weight", (32, len(ENCODER_VOCABULARY))),
        *(Tensor(f"{name}.{part}", (32,)) for name in norms for part in ("weight", "bias")),
        *(Tensor(f"blk.0.{name}.weight", (32, width)) for name, width in layer.items()),
        *(Tensor(f"blk.0.{name}.bias", (width,)) for name, width in layer.items()),
        Tensor("blk.0.ffn_down.weight", (64, 32)),
        Tensor("blk.0.ffn_down.bias", (32,)),
    ]
    return pairs, tensors


def tiny_ranker(labels: int = 1) -> bytes:
    """A whole BERT of one layer with a ranking head, for inputs of up to 32 tokens. All its scores are 0."""
    return _with_head(tiny_encoder_parts(), "bert", labels)


def tiny_yes_no_ranker() -> bytes:
    """A whole Qwen3 of one layer that scores "yes" and "no", for inputs of up to 128 tokens. Both are 0."""
    pairs = model_pairs("qwen3") | {"qwen3.pooling_type": (U32, 4)}
    norms = [Tensor(f"blk.0.attn_{name}_norm.weight", (16,)) for name in "qk"]
    return _with_head((pairs, [*model_tensors(), *norms]), "qwen3", 2)


def _with_head(parts: tuple[Mapping[str, tuple[int, Any]], Sequence[Tensor]], architecture: str, labels: int) -> bytes:
    pairs, tensors = parts
    names = [f"label {number}" for number in range(labels)]
    head = [Tensor("cls.output.weight", (32, labels))]
    return gguf({**pairs, f"{architecture}.classifier.output_labels": array(STR, names)}, [*tensors, *head])
