"""UQFF files, made by hand: a writer of the container, and the plainest encoder of each family.

Source: mistral.rs, mistralrs-quant/src/uqff, version 1.2.0 of the format.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from gguf_file import GgufFile

Tensor: TypeAlias = tuple[str, tuple[int, ...], bytes]
"""Type, shape and contents, as safetensors has them."""
Tensors: TypeAlias = dict[str, Tensor]

_DTYPES = {"uint8": "U8", "uint32": "U32", "float16": "F16", "float32": "F32"}
# What the bytes of E4M3 up to 0x7F stand for, and the nibbles of FP4 up to 7; the others are the same, negative.
E4M3 = [
    *(mantissa * 2.0**-9 for mantissa in range(8)),
    *((8 + mantissa) * 2.0 ** (exponent - 10) for exponent in range(1, 16) for mantissa in range(8)),
]
E4M3[0x7F] = math.nan
_EXPERT = re.compile(r"(.+\.experts)\.\d+\.(\w+)\.weight")
FP4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    at, data = 0, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(content)]}
        at += len(content)
    data = b"".join(content for _, _, content in tensors.values())
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def array(values: np.ndarray) -> Tensor:
    return _DTYPES[values.dtype.name], values.shape, np.ascontiguousarray(values).tobytes()


def u8(value: int) -> Tensor:
    return "U8", (), bytes([value])


def u32(value: int) -> Tensor:
    return "U32", (), struct.pack("<I", value)


def version(major: int = 1, minor: int = 2, patch: int = 0) -> Tensors:
    return {
        "uqff.version.major": u32(major),
        "uqff.version.minor": u32(minor),
        "uqff.version.patch": u32(patch),
    }


def ggml(prefix: str, blocks: bytes, kind: int, shape: tuple[int, ...]) -> Tensors:
    """A layer of those blocks, of the GGML type of that number."""
    return _layer(prefix, 0, ("U8", (len(blocks),), blocks)) | {
        f"{prefix}.weight.dtype": u32(kind),
        f"{prefix}.weight.shape": ("U32", (len(shape),), struct.pack(f"<{len(shape)}I", *shape)),
    }


def unquant(prefix: str, values: np.ndarray) -> Tensors:
    return _layer(prefix, 1, array(values))


def hqq(prefix: str, values: np.ndarray, bits: int = 4, group: int = 64) -> Tensors:
    matrix = values.astype(np.float32).reshape(group, -1)
    top = 2**bits - 1
    low, high = matrix.min(axis=0), matrix.max(axis=0)
    scales = ((high - low) / top).astype(np.float16)
    zeros = (-low / scales.astype(np.float32)).astype(np.float16)
    codes = np.clip(np.rint(matrix / scales.astype(np.float32) + zeros.astype(np.float32)), 0, top)
    return hqq_of(prefix, codes, scales, zeros, bits, values.shape)


def hqq_of(
    prefix: str,
    codes: np.ndarray,
    scales: np.ndarray,
    zeros: np.ndarray,
    bits: int,
    shape: tuple[int, ...],
    axis: int = 0,
) -> Tensors:
    """Codes as a matrix; the weights that share a scale are one of its columns, or with axis 1 one of its rows."""
    rows = len(codes) * bits // 8
    packed = np.zeros((rows, codes.shape[1]), int)
    for part in range(8 // bits):
        packed = packed << bits | codes[part * rows : (part + 1) * rows].astype(int)
    sides = (1, -1) if axis == 0 else (-1, 1)
    return _layer(prefix, 2, array(packed.astype(np.uint8))) | {
        f"{prefix}.weight.scales": array(scales.reshape(sides)),
        f"{prefix}.weight.zeros": array(zeros.reshape(sides)),
        f"{prefix}.weight.shape": ("U32", (len(shape),), struct.pack(f"<{len(shape)}I", *shape)),
        f"{prefix}.weight.bits": u8(bits),
        f"{prefix}.weight.group_size": u32(codes.shape[axis]),
        f"{prefix}.weight.axis": u8(axis),
        f"{prefix}.weight.optimization_steps": u32(0),
        f"{prefix}.weight.round_zeros": u8(0),
        f"{prefix}.weight.channel_wise": u8(1),
    }


def fp8(prefix: str, values: np.ndarray) -> Tensors:
    scale = float(np.abs(values).max()) / 448
    return fp8_of(prefix, to_e4m3(values / scale), scale)


def fp8_of(prefix: str, codes: np.ndarray, scale: float) -> Tensors:
    return _layer(prefix, 3, ("F8_E4M3", codes.shape, codes.tobytes())) | {
        f"{prefix}.weight.dequant_w_scale": ("F32", (), struct.pack("<f", scale)),
        f"{prefix}.weight.dequant_x_scale": ("F32", (), struct.pack("<f", 1.0)),
        f"{prefix}.weight.quant_scale": ("F32", (), struct.pack("<f", 1 / scale)),
        f"{prefix}.weight.dtype": u32(5),
    }


def afq(prefix: str, values: np.ndarray, bits: int = 4, group: int = 64) -> Tensors:
    groups = values.astype(np.float32).reshape(*values.shape[:-1], -1, group)
    top = 2**bits - 1
    low = groups.min(axis=-1).astype(np.float16)
    scales = ((groups.max(axis=-1) - low) / top).astype(np.float16)
    codes = np.clip(np.rint((groups - low[..., None]) / scales[..., None].astype(np.float32)), 0, top)
    return afq_of(prefix, codes.reshape(values.shape).astype(int), scales, low, bits)


def afq_of(prefix: str, codes: np.ndarray, scales: np.ndarray, biases: np.ndarray, bits: int) -> Tensors:
    """One code a weight; scales and biases one a group."""
    width = codes.shape[-1]
    packed = b""
    for row in codes.reshape(-1, width):
        stream = int("".join(f"{code:0{bits}b}" for code in row[::-1]), 2)
        packed += stream.to_bytes(width * bits // 8, "little")
    return _layer(prefix, 4, ("U32", (*codes.shape[:-1], width * bits // 32), packed)) | {
        f"{prefix}.weight.scales": array(scales),
        f"{prefix}.weight.biases": array(biases),
        f"{prefix}.weight.bits": u8(bits),
        f"{prefix}.weight.group_size": u8(width // scales.shape[-1]),
    }


def f8q8(prefix: str, values: np.ndarray) -> Tensors:
    flat = values.astype(np.float32).ravel()
    blocks = np.concatenate([flat, np.zeros(-len(flat) % 32, np.float32)]).reshape(-1, 32)
    scales = np.maximum(np.abs(blocks).max(axis=1) / 127, 1e-9)
    return f8q8_of(prefix, np.rint(blocks / scales[:, None]), to_e4m3(scales * 448), values.shape)


def f8q8_of(prefix: str, codes: np.ndarray, scales: np.ndarray, shape: tuple[int, ...]) -> Tensors:
    """Codes from -127 to 127, 32 a row; the scale of each row as E4M3 of its 448-fold."""
    stored = np.concatenate([scales[:, None], codes.astype(np.int8).view(np.uint8)], axis=1).tobytes()
    return _layer(prefix, 5, ("U8", (len(stored),), stored)) | {
        f"{prefix}.weight.num_blocks": u32(len(codes)),
        f"{prefix}.weight.shape": ("U32", (len(shape),), struct.pack(f"<{len(shape)}I", *shape)),
    }


def mxfp4(prefix: str, values: np.ndarray) -> Tensors:
    groups = values.astype(np.float32).reshape(*values.shape[:-1], -1, 32)
    largest = np.maximum(np.abs(groups).max(axis=-1), 2.0**-100)
    exponents = np.floor(np.log2(largest)).astype(int) - 2
    scaled = groups / np.exp2(exponents)[..., None]
    codes = np.abs(np.abs(scaled)[..., None] - np.array(FP4)).argmin(axis=-1) | np.where(scaled < 0, 8, 0)
    return mxfp4_of(prefix, codes.reshape(values.shape), exponents + 127)


def mxfp4_of(prefix: str, codes: np.ndarray, exponents: np.ndarray) -> Tensors:
    packed = (codes[..., 0::2] | codes[..., 1::2] << 4).astype(np.uint8)
    return _layer(prefix, 6, array(packed)) | {f"{prefix}.weight.scales": array(exponents.astype(np.uint8))}


def _layer(prefix: str, family: int, weight: Tensor) -> Tensors:
    return {f"{prefix}.weight.format": u8(family), f"{prefix}.weight": weight}


def to_e4m3(values: np.ndarray) -> np.ndarray:
    """The nearest numbers of E4M3."""
    magnitudes = np.array(E4M3[:127])
    nearest = np.abs(np.abs(values)[..., None] - magnitudes).argmin(axis=-1)
    return (nearest | np.where(values < 0, 0x80, 0)).astype(np.uint8)


Encode: TypeAlias = Callable[[str, np.ndarray], Tensors]


def blocks_of(path: Path) -> Encode:
    """Layers with the blocks of a GGUF of a Llama model, their rows in the order of transformers."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    reader = GgufFile(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    count = reader.fields["llama.block_count"].contents()
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, count)
    heads = {
        "q_proj": reader.fields["llama.attention.head_count"].contents(),
        "k_proj": reader.fields["llama.attention.head_count_kv"].contents(),
    }

    def encode(prefix: str, values: np.ndarray) -> Tensors:
        tensor = tensors[f"{names.get_name(prefix)}.weight"]
        rows = tensor.data.view(np.uint8).reshape(values.shape[0], -1)
        if (number := heads.get(prefix.rpartition(".")[2])) is not None:
            # GGUF rotates neighbours, transformers the two halves of a head.
            rows = rows.reshape(number, len(rows) // number // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)
        return ggml(prefix, rows.tobytes(), int(tensor.tensor_type), values.shape)

    return encode


def make_uqff(checkpoint: Path, folder: Path, encode: Encode, *, stem: str = "q4_1", shards: int = 2) -> Path:
    """A folder as ``mistralrs quantize`` writes it, of a checkpoint: all matrices are layers, the rest is residual.

    The experts of a block are one layer together.
    """
    from safetensors.numpy import load_file

    folder.mkdir(parents=True)
    layers: list[Tensors] = []
    residual: Tensors = {}
    experts: defaultdict[str, list[np.ndarray]] = defaultdict(list)
    for path in sorted(checkpoint.glob("model*.safetensors")):
        weights = load_file(path)
        for name, values in sorted(weights.items(), key=lambda one: _numbered(one[0])):
            if (expert := _EXPERT.fullmatch(name)) is not None:
                experts[f"{expert[1]}.{expert[2]}"].append(values)
            elif values.ndim == 2:
                layers.append(encode(name.removesuffix(".weight"), values))
            else:
                residual[name] = array(values)
    layers += [encode(prefix, np.stack(parts)) for prefix, parts in experts.items()]
    for number, part in enumerate(_parts(layers, shards)):
        tensors = (version() if number == 0 else {}) | part
        (folder / f"{stem}-{number}.uqff").write_bytes(safetensors(tensors, {"uqff.producer": "test"}))
    (folder / "residual.safetensors").write_bytes(safetensors(residual))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(checkpoint / name, folder / name)
    return folder


def _numbered(name: str) -> list[tuple[int, str]]:
    """By what names are sorted so that 10 comes after 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def _parts(layers: list[Tensors], count: int) -> Iterable[Tensors]:
    for number in range(count):
        part: Tensors = {}
        for layer in layers[number::count]:
            part |= layer
        yield part
