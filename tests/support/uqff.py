"""UQFF files, made by hand: a writer of the container, and the plainest encoder of each family.

Source: mistral.rs, mistralrs-quant/src/uqff, version 1.2.0 of the format.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFReader, get_tensor_name_map
from gguf.quants import quantize

Tensor: TypeAlias = tuple[str, tuple[int, ...], bytes]
"""Type, shape and contents, as safetensors has them."""
Tensors: TypeAlias = dict[str, Tensor]

_DTYPES = {"uint8": "U8", "uint32": "U32", "float16": "F16", "float32": "F32"}
_E4M3 = [
    (m * 2.0**-9 if e == 0 else (8 + m) * 2.0 ** (e - 10)) if (e, m) != (15, 7) else math.nan
    for e in range(16)
    for m in range(8)
]
_FP4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


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


def shape_of(values: np.ndarray) -> Tensor:
    return "U32", (values.ndim,), struct.pack(f"<{values.ndim}I", *values.shape)


def version(major: int = 1, minor: int = 2, patch: int = 0) -> Tensors:
    return {
        "uqff.version.major": u32(major),
        "uqff.version.minor": u32(minor),
        "uqff.version.patch": u32(patch),
    }


def ggml(prefix: str, blocks: bytes, kind: GGMLQuantizationType, shape: tuple[int, ...]) -> Tensors:
    """A layer of those blocks."""
    return _layer(prefix, 0, ("U8", (len(blocks),), blocks)) | {
        f"{prefix}.weight.dtype": u32(int(kind)),
        f"{prefix}.weight.shape": ("U32", (len(shape),), struct.pack(f"<{len(shape)}I", *shape)),
    }


def gguf_layer(prefix: str, values: np.ndarray, kind: GGMLQuantizationType) -> Tensors:
    return ggml(prefix, quantize(values.astype(np.float32), kind).tobytes(), kind, values.shape)


def unquant(prefix: str, values: np.ndarray) -> Tensors:
    return _layer(prefix, 1, array(values))


def hqq(prefix: str, values: np.ndarray, bits: int = 4, group: int = 64) -> Tensors:
    """Groups are the columns of the weights as ``group`` rows."""
    matrix = values.astype(np.float32).reshape(group, -1)
    top = 2**bits - 1
    low, high = matrix.min(axis=0), matrix.max(axis=0)
    scales = ((high - low) / top).astype(np.float16)
    zeros = (-low / scales.astype(np.float32)).astype(np.float16)
    codes = np.clip(np.rint(matrix / scales.astype(np.float32) + zeros.astype(np.float32)), 0, top).astype(np.uint8)
    packed = codes if bits == 8 else (codes[: group // 2] << 4) | codes[group // 2 :]
    return _layer(prefix, 2, array(packed)) | {
        f"{prefix}.weight.scales": array(scales.reshape(1, -1)),
        f"{prefix}.weight.zeros": array(zeros.reshape(1, -1)),
        f"{prefix}.weight.shape": shape_of(values),
        f"{prefix}.weight.bits": u8(bits),
        f"{prefix}.weight.group_size": u32(group),
        f"{prefix}.weight.axis": u8(0),
        f"{prefix}.weight.optimization_steps": u32(0),
        f"{prefix}.weight.round_zeros": u8(0),
        f"{prefix}.weight.channel_wise": u8(1),
    }


def fp8(prefix: str, values: np.ndarray) -> Tensors:
    scale = float(np.abs(values).max()) / 448
    codes = np.array([_to_e4m3(value / scale) for value in values.ravel()], np.uint8)
    return _layer(prefix, 3, ("F8_E4M3", values.shape, codes.tobytes())) | {
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
    codes = np.clip(np.rint((groups - low[..., None]) / scales[..., None].astype(np.float32)), 0, top).astype(int)
    rows = codes.reshape(-1, values.shape[-1])
    words = [int("".join(f"{code:0{bits}b}" for code in row[::-1]), 2) for row in rows]
    packed = b"".join(word.to_bytes(values.shape[-1] * bits // 8, "little") for word in words)
    return _layer(prefix, 4, ("U32", (*values.shape[:-1], values.shape[-1] * bits // 32), packed)) | {
        f"{prefix}.weight.scales": array(scales),
        f"{prefix}.weight.biases": array(low),
        f"{prefix}.weight.bits": u8(bits),
        f"{prefix}.weight.group_size": u8(group),
    }


def f8q8(prefix: str, values: np.ndarray) -> Tensors:
    flat = values.astype(np.float32).ravel()
    blocks = np.concatenate([flat, np.zeros(-len(flat) % 32, np.float32)]).reshape(-1, 32)
    stored = b""
    for block in blocks:
        scale = float(np.abs(block).max()) / 127
        codes = np.rint(block / scale if scale else block).astype(np.int8)
        stored += bytes([_to_e4m3(scale * 448)]) + codes.tobytes()
    return _layer(prefix, 5, ("U8", (len(stored),), stored)) | {
        f"{prefix}.weight.num_blocks": u32(len(blocks)),
        f"{prefix}.weight.shape": shape_of(values),
    }


def mxfp4(prefix: str, values: np.ndarray) -> Tensors:
    groups = values.astype(np.float32).reshape(*values.shape[:-1], -1, 32)
    largest = np.maximum(np.abs(groups).max(axis=-1), 2.0**-100)
    exponents = np.floor(np.log2(largest)).astype(int) - 2
    scaled = groups / np.exp2(exponents)[..., None]
    codes = np.abs(np.abs(scaled)[..., None] - np.array(_FP4)).argmin(axis=-1) | np.where(scaled < 0, 8, 0)
    rows = codes.reshape(values.shape)
    packed = (rows[..., 0::2] | rows[..., 1::2] << 4).astype(np.uint8)
    return _layer(prefix, 6, array(packed)) | {f"{prefix}.weight.scales": array((exponents + 127).astype(np.uint8))}


def _layer(prefix: str, family: int, weight: Tensor) -> Tensors:
    return {f"{prefix}.weight.format": u8(family), f"{prefix}.weight": weight}


def _to_e4m3(value: float) -> int:
    nearest = min(range(127), key=lambda code: abs(_E4M3[code] - abs(value)))
    return nearest | (0x80 if value < 0 else 0)


Encode: TypeAlias = Callable[[str, np.ndarray], Tensors]


def blocks_of(path: Path) -> Encode:
    """Layers with the blocks of a GGUF of a Llama model, their rows in the order of transformers."""
    reader = GGUFReader(path)
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
        return ggml(prefix, rows.tobytes(), tensor.tensor_type, values.shape)

    return encode


def make_uqff(checkpoint: Path, folder: Path, encode: Encode, *, stem: str = "q4_1", shards: int = 2) -> Path:
    """A folder as ``mistralrs quantize`` writes it, of a checkpoint: all matrices are layers, the rest is residual."""
    from safetensors.numpy import load_file

    folder.mkdir(parents=True)
    layers: list[Tensors] = []
    residual: Tensors = {}
    for path in sorted(checkpoint.glob("model*.safetensors")):
        for name, values in load_file(path).items():
            if values.ndim == 2:
                layers.append(encode(name.removesuffix(".weight"), values))
            else:
                residual[name] = array(values)
    for number, part in enumerate(_parts(layers, shards)):
        tensors = (version() if number == 0 else {}) | part
        (folder / f"{stem}-{number}.uqff").write_bytes(safetensors(tensors, {"uqff.producer": "test"}))
    (folder / "residual.safetensors").write_bytes(safetensors(residual))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(checkpoint / name, folder / name)
    return folder


def _parts(layers: list[Tensors], count: int) -> Iterable[Tensors]:
    for number in range(count):
        part: Tensors = {}
        for layer in layers[number::count]:
            part |= layer
        yield part
