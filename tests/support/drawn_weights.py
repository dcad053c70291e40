"""Models that stand for the demo models where the meaning of an answer does not matter: small, with drawn weights.

Each has the vocabulary, the control tokens, the template and the kind of attention of a demo model, at a tenth of the
arithmetic. The weights are 32-bit numbers, which llama.cpp does not round activations for: two tokens are hardly
ever so close that the composition of a batch decides between them. Greedy answers vary from token to token: one that is
lost or repeated shows. They consist of whole characters, and do not end by themselves.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from support.gguf_writer import ARR, LAYOUTS, STR, TENSOR_F32, U32, array, pair, string

_FEED, _HEAD, _HEADS, _KV_HEADS = 384, 64, 4, 2
# The output's: draws have some hundred tokens to choose from. Attention's: it works with 16-bit numbers, whose rounding
# is to stay small.
_SCALES: Final = {"attn_output": 0.05, "post_attention_norm": 0.05, "output.weight": 3.0}
_ALIGNMENT: Final = 32

# The token types of GGUF. Source: ggml, docs/gguf.md.
_NORMAL: Final = 1

# Source: bytes_to_unicode in GPT-2, src/encoder.py.
_PRINTED: Final = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_GPT2_BYTES: Final = {chr(byte): byte for byte in _PRINTED} | {
    chr(0x100 + place): byte for place, byte in enumerate(sorted(set(range(0x100)) - set(_PRINTED)))
}


@dataclass(frozen=True)
class _Shape:
    """What a model is made of.

    Attributes:
        architecture: as in its header.
        layers, width: of the network.
        seed: of the numbers that are drawn.
        tokens: how many of the vocabulary's are kept, the first ones; None: all.
        norms: of a layer, beside the two that every architecture has: name -> width.
    """

    architecture: str
    layers: int
    width: int
    seed: int
    tokens: int | None = None
    norms: Mapping[str, int] = field(default_factory=dict)


_SHAPES: Final[Mapping[str, _Shape]] = {
    "smollm2": _Shape("llama", layers=4, width=128, seed=1),
    # Every sixth layer sees everything, the others a window.
    "gemma3": _Shape(
        "gemma3",
        layers=6,
        width=128,
        seed=1,
        tokens=32_768,
        norms={"attn_q_norm": _HEAD, "attn_k_norm": _HEAD, "post_attention_norm": 128, "post_ffw_norm": 128},
    ),
}
_OF_TOKENS: Final = ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type")


def write_drawn(weights: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Write the two models in ``folder``, of some 40 MB each, under the names of the demo models' files.

    Args:
        weights: the demo models' files, by name.
        folder: is there.
    """
    return {name: _write(weights[name], folder / weights[name].name, shape) for name, shape in _SHAPES.items()}


def _write(source: Path, path: Path, shape: _Shape) -> Path:
    pairs, is_text = _pairs(source, shape)
    rng = np.random.default_rng(shape.seed)
    head = b""
    offset, parts = 0, []
    for name, size in _sizes(shape, len(is_text)).items():
        values = _drawn(rng, name, size)
        if name == "output.weight":
            values[~is_text] = 0
        head += string(name) + struct.pack("<I", values.ndim) + struct.pack(f"<{values.ndim}Q", *reversed(size))
        head += struct.pack("<IQ", TENSOR_F32, offset)
        parts.append(values.tobytes() + bytes(-values.nbytes % _ALIGNMENT))
        offset += len(parts[-1])
    head = b"GGUF" + struct.pack("<IQQ", 3, len(parts), len(pairs)) + b"".join(pairs.values()) + head
    path.write_bytes(head + bytes(-len(head) % _ALIGNMENT) + b"".join(parts))
    return path


def _sizes(shape: _Shape, tokens: int) -> dict[str, tuple[int, ...]]:
    """The tensors, by name, with the input's width last."""
    width, outer, inner = shape.width, _HEADS * _HEAD, _KV_HEADS * _HEAD
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm": (width,),
        "attn_q": (outer, width),
        "attn_k": (inner, width),
        "attn_v": (inner, width),
        "attn_output": (width, outer),
        "ffn_norm": (width,),
        "ffn_gate": (_FEED, width),
        "ffn_up": (_FEED, width),
        "ffn_down": (width, _FEED),
        **{name: (size,) for name, size in shape.norms.items()},
    }
    return {
        "token_embd.weight": (tokens, width),
        "output_norm.weight": (width,),
        "output.weight": (tokens, width),
        **{f"blk.{n}.{name}.weight": size for n in range(shape.layers) for name, size in layer.items()},
    }


def _drawn(rng: np.random.Generator, name: str, size: tuple[int, ...]) -> np.ndarray:
    scale = next((scale for part, scale in _SCALES.items() if part in name), 1.0)
    if len(size) == 1:
        return np.full(size, scale, np.float32)
    return rng.standard_normal(size, np.float32) * np.float32(scale / math.sqrt(size[-1]))


def _pairs(source: Path, shape: _Shape) -> tuple[dict[str, bytes], np.ndarray]:
    """The header of the model, written, and of each token whether it is whole characters."""
    numbers = {
        "block_count": shape.layers,
        "embedding_length": shape.width,
        "feed_forward_length": _FEED,
        "attention.head_count": _HEADS,
        "attention.head_count_kv": _KV_HEADS,
        "attention.key_length": _HEAD,
        "attention.value_length": _HEAD,
        "rope.dimension_count": _HEAD,
    }
    own = {f"{shape.architecture}.{name}": number for name, number in numbers.items()} | {"general.file_type": 0}
    written, of_tokens = {}, {}
    with source.open("rb") as file:
        reader = _Reader(file)
        for key, kind, value in reader.pairs():
            if key in _OF_TOKENS:
                value = (value[0], value[1][: shape.tokens])
                of_tokens[key] = value[1]
            written[key] = pair(key, kind, array(*value)[1] if kind == ARR else value)
    is_text = [
        kind == _NORMAL and _is_whole(token)
        for token, kind in zip(of_tokens["tokenizer.ggml.tokens"], of_tokens["tokenizer.ggml.token_type"], strict=True)
    ]
    return written | {key: pair(key, U32, number) for key, number in own.items()}, np.array(is_text)


def _is_whole(token: str) -> bool:
    """Whether a token is whole characters, where those of GPT-2 stand for bytes."""
    if not all(character in _GPT2_BYTES for character in token):
        return True
    try:
        bytes(_GPT2_BYTES[character] for character in token).decode()
    except UnicodeDecodeError:
        return False
    return True


class _Reader:
    """Reads the header of a GGUF file. Source of the format: ggml, docs/gguf.md."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def pairs(self) -> Iterator[tuple[str, int, Any]]:
        """Key, type and value; that of an array is the type of its elements and a list."""
        self._file.seek(16)
        (count,) = self._numbers("<Q")
        for _ in range(count):
            key = self._value(STR)
            (kind,) = self._numbers("<I")
            if kind == ARR:
                element, length = self._numbers("<IQ")
                yield key, kind, (element, [self._value(element) for _ in range(length)])
            else:
                yield key, kind, self._value(kind)

    def _value(self, kind: int) -> Any:
        if kind == STR:
            return self._file.read(self._numbers("<Q")[0]).decode()
        return self._numbers(LAYOUTS[kind])[0]

    def _numbers(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(layout, self._file.read(struct.calcsize(layout)))
