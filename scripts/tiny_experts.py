"""Make a tiny model with experts, with random weights: what it says means nothing.

    python scripts/tiny_experts.py MODEL.gguf FILE.gguf

It has the vocabulary and the chat template of MODEL.gguf, any model that generates text, and half of its weights in
experts. Needs numpy alone. The same seed gives the same file. Source of the layout: llama.cpp, ggml/docs/gguf.md.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

SEED: Final = 7
WIDTH, LAYERS, HEADS, KV_HEADS, FEED_FORWARD, EXPERTS, USED_EXPERTS, CONTEXT = 256, 8, 4, 2, 512, 8, 2, 4096
SCALE: Final = 0.05

EXPERT_BYTES: Final = LAYERS * EXPERTS * 3 * WIDTH * FEED_FORWARD * 2
"""Bytes of all experts."""

_F16, _F32 = 1, 0
_UINT32, _FLOAT32, _STRING, _ARRAY, _UINT64 = 4, 6, 8, 9, 10
_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, _UINT32: 4, 5: 4, _FLOAT32: 4, 7: 1, _UINT64: 8, 11: 8, 12: 8}
_ALIGNMENT: Final = 32
_VERSION: Final = 3
_TOKENS: Final = "tokenizer.ggml.tokens"


def make(model: Path, file: Path) -> Path:
    """Write the model to ``file``, with the vocabulary of ``model``."""
    with model.open("rb") as source:
        pairs = {key: raw for key, raw in _pairs(source) if key.startswith("tokenizer.")}
    # Type of the array, type of its elements, number of its elements.
    (vocabulary,) = struct.unpack_from("<Q", pairs[_TOKENS], len(_text(_TOKENS)) + 8)
    pairs |= {key: _text(key) + struct.pack("<I", _STRING) + _text(value) for key, value in _words().items()}
    pairs |= {key: _text(key) + struct.pack("<II", _UINT32, value) for key, value in _numbers(vocabulary).items()}
    epsilon = "llama.attention.layer_norm_rms_epsilon"
    pairs[epsilon] = _text(epsilon) + struct.pack("<If", _FLOAT32, 1e-5)
    shapes = dict(_shapes(vocabulary))
    with file.open("wb") as out:
        out.write(b"GGUF" + struct.pack("<IQQ", _VERSION, len(shapes), len(pairs)) + b"".join(pairs.values()))
        offset = 0
        for name, shape in shapes.items():
            kind = _F32 if len(shape) == 1 else _F16
            out.write(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset))
            size = int(np.prod(shape)) * (4 if kind == _F32 else 2)
            offset += size + -size % _ALIGNMENT
        rng = np.random.default_rng(SEED)
        for shape in shapes.values():
            out.write(bytes(-out.tell() % _ALIGNMENT))
            out.write(_drawn(rng, shape))
        out.write(bytes(-out.tell() % _ALIGNMENT))
    return file


def _words() -> dict[str, str]:
    return {"general.architecture": "llama", "general.name": "tiny-experts"}


def _numbers(vocabulary: int) -> dict[str, int]:
    return {
        "general.file_type": 1,
        "llama.vocab_size": vocabulary,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.expert_count": EXPERTS,
        "llama.expert_used_count": USED_EXPERTS,
    }


def _shapes(vocabulary: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the names of tensors and their shapes in ggml's order: the first dimension is the contiguous one."""
    yield "token_embd.weight", (WIDTH, vocabulary)
    yield "output_norm.weight", (WIDTH,)
    kv_width = WIDTH // HEADS * KV_HEADS
    for layer in range(LAYERS):
        parts = {
            "attn_norm": (WIDTH,),
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (WIDTH, kv_width),
            "attn_v": (WIDTH, kv_width),
            "attn_output": (WIDTH, WIDTH),
            "ffn_norm": (WIDTH,),
            "ffn_gate_inp": (WIDTH, EXPERTS),
            "ffn_gate_exps": (WIDTH, FEED_FORWARD, EXPERTS),
            "ffn_up_exps": (WIDTH, FEED_FORWARD, EXPERTS),
            "ffn_down_exps": (FEED_FORWARD, WIDTH, EXPERTS),
        }
        yield from ((f"blk.{layer}.{name}.weight", shape) for name, shape in parts.items())


def _drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> bytes:
    if len(shape) == 1:
        return np.ones(shape, np.float32).tobytes()
    return (rng.standard_normal(shape[::-1], np.float32) * SCALE).astype(np.float16).tobytes()


def _pairs(source: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Yield the keys of a file, each with the bytes of the whole entry."""
    source.seek(16)
    (count,) = struct.unpack("<Q", source.read(8))
    for _ in range(count):
        start = source.tell()
        key = source.read(_number(source, _UINT64)).decode()
        _skip(source, _number(source, _UINT32))
        end = source.tell()
        source.seek(start)
        yield key, source.read(end - start)


def _skip(source: BinaryIO, kind: int) -> None:
    if kind == _ARRAY:
        element, count = _number(source, _UINT32), _number(source, _UINT64)
        if element in _SIZES:
            source.seek(_SIZES[element] * count, 1)
        else:
            for _ in range(count):
                _skip(source, element)
    else:
        source.seek(_number(source, _UINT64) if kind == _STRING else _SIZES[kind], 1)


def _number(source: BinaryIO, kind: int) -> int:
    return int.from_bytes(source.read(_SIZES[kind]), "little")


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(make(Path(sys.argv[1]), Path(sys.argv[2])))
