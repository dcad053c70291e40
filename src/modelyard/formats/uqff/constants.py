"""The names and numbers of UQFF 1.x, the format that ``mistralrs quantize`` writes: safetensors with conventions.

A layer is a group of tensors that share a prefix: ``<prefix>.weight`` and suffixes of it. ``<prefix>.weight.format`` is
the family, which determines the others.

Source: mistral.rs, mistralrs-quant/src/uqff, version 1.2.0 of the format.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

SUFFIX: Final = ".uqff"
REPORT: Final = "uqff_report.json"
RESIDUAL: Final = "residual.safetensors"

VERSION_MAJOR: Final = "uqff.version.major"
VERSION_MINOR: Final = "uqff.version.minor"
VERSION_PATCH: Final = "uqff.version.patch"
VERSION_KEYS: Final = (VERSION_MAJOR, VERSION_MINOR, VERSION_PATCH)

# The version that is written. Files of the same major and no greater minor version are read.
VERSION: Final = (1, 2, 0)

# ``__metadata__`` of shards and residual, for information only.
METADATA_PRODUCER: Final = "uqff.producer"
METADATA_VERSION: Final = "uqff.version"

# Limit of a shard, which only a single tensor may exceed.
MAX_SHARD_BYTES: Final = 10 * 2**30


class Family(IntEnum):
    """How the weights of a layer are stored: the value of ``<prefix>.weight.format`` (U8, shape [])."""

    GGUF = 0
    UNQUANT = 1
    HQQ = 2
    FP8 = 3
    AFQ = 4
    F8Q8 = 5
    MXFP4 = 6


# Suffixes of ``<prefix>``.
WEIGHT: Final = ".weight"
BIAS: Final = ".bias"

# Suffixes of ``<prefix>.weight``.
FORMAT: Final = ".format"  # all families
DTYPE: Final = ".dtype"  # GGUF: its GGML type, FP8: the type of the activations; a U32 of shape []
SHAPE: Final = ".shape"  # GGUF, HQQ, F8Q8: the logical shape, U32 [rank]
SCALES: Final = ".scales"  # HQQ, AFQ, MXFP4
ZEROS: Final = ".zeros"  # HQQ
BIASES: Final = ".biases"  # AFQ
BITS: Final = ".bits"  # HQQ, AFQ: U8
GROUP_SIZE: Final = ".group_size"  # HQQ: U32. AFQ: U8
AXIS: Final = ".axis"  # HQQ: U8
OPTIMIZATION_STEPS: Final = ".optimization_steps"  # HQQ: U32, 0 for none
ROUND_ZEROS: Final = ".round_zeros"  # HQQ: U8
CHANNEL_WISE: Final = ".channel_wise"  # HQQ: U8
NUM_BLOCKS: Final = ".num_blocks"  # F8Q8: U32
DEQUANT_W_SCALE: Final = ".dequant_w_scale"  # FP8: F32
DEQUANT_X_SCALE: Final = ".dequant_x_scale"  # FP8: F32
QUANT_SCALE: Final = ".quant_scale"  # FP8: F32

# ``.weight.dtype`` of the family GGUF; numbers and names as in ``gguf.constants.TENSOR_TYPES``.
GGML_TYPES: Final[Mapping[int, str]] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1",
    10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 30: "BF16",
}  # fmt: skip

# ``.weight.dtype`` of the family FP8.
ACTIVATION_DTYPES: Final[Mapping[int, str]] = {
    0: "U8", 1: "U32", 2: "I32", 3: "I64", 4: "F16", 5: "BF16", 6: "F32", 7: "F64", 8: "I16", 9: "F8_E4M3",
    10: "F6_E2M3", 11: "F6_E3M2", 12: "F4", 13: "F8_E8M0",
}  # fmt: skip

# Types that are written, as in the stems of file names and the ``quant`` of a report.
TYPES: Final = (
    "q2k", "q3k", "q4k", "q4_0", "q4_1", "q5k", "q5_0", "q5_1", "q6k", "q8k", "q8_0", "q8_1", "hqq4", "hqq8", "fp8",
    "afq2", "afq3", "afq4", "afq6", "afq8", "f8q8", "mxfp4",
)  # fmt: skip

# Number of bits -> its types, the fastest one on processors and CUDA first.
SHORTHANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "2": ("q2k", "afq2"),
    "3": ("q3k", "afq3"),
    "4": ("q4k", "afq4"),
    "5": ("q5k",),
    "6": ("q6k", "afq6"),
    "8": ("q8_0", "afq8"),
}

AFQ_BITS: Final = (2, 3, 4, 6, 8)
AFQ_GROUP_SIZES: Final = (32, 64, 128)

# Number of weights that share a scale.
F8Q8_BLOCK: Final = 32
F8Q8_BLOCK_BYTES: Final = 33
MXFP4_BLOCK: Final = 32
