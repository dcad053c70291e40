"""The numbers of the GGUF format: value types, tensor types, file types.

Source: llama.cpp as of b11739, ggml/docs/gguf.md, ggml/include/gguf.h, ggml/include/ggml.h, ggml/src/ggml-common.h,
include/llama.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

MAGIC: Final = b"GGUF"
READABLE_VERSIONS: Final = (2, 3)
DEFAULT_ALIGNMENT: Final = 32
MAX_TENSOR_NAME_LENGTH: Final = 63  # GGML_MAX_NAME, less its final zero
MAX_DIMENSIONS: Final = 4

UINT16: Final = 2
UINT32: Final = 4
INT32: Final = 5
FLOAT32: Final = 6
BOOL: Final = 7
STRING: Final = 8
ARRAY: Final = 9

VALUE_TYPE_NAMES: Final = (
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "str", "arr", "u64", "i64", "f64",
)  # fmt: skip

# Layout of a scalar of each type on disk: little-endian, unpadded.
SCALARS: Final = {
    0: Struct("<B"),
    1: Struct("<b"),
    UINT16: Struct("<H"),
    3: Struct("<h"),
    UINT32: Struct("<I"),
    INT32: Struct("<i"),
    FLOAT32: Struct("<f"),
    BOOL: Struct("<?"),
    10: Struct("<Q"),
    11: Struct("<q"),
    12: Struct("<d"),
}


@dataclass(frozen=True, slots=True)
class TensorType:
    """The layout of a tensor's elements: blocks of block_elements that take block_bytes each."""

    name: str
    block_elements: int
    block_bytes: int


# Numbers that are missing here were removed from the format (Q4_2, Q4_3, the repacked Q4_0 and IQ4_NL).
TENSOR_TYPES: Final = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    9: TensorType("Q8_1", 32, 36),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    15: TensorType("Q8_K", 256, 292),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
    40: TensorType("NVFP4", 64, 36),
    41: TensorType("Q1_0", 128, 18),
    42: TensorType("Q2_0", 64, 18),
}

# enum llama_ftype, the values of ``general.file_type``.
FILE_TYPES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
    39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
FILE_TYPE_GUESSED: Final = 1024  # LLAMA_FTYPE_GUESSED, a flag over the numbers above


def value_type_name(number: int) -> str:
    """Return the short name of a value type; "type" and its number if it is unknown."""
    return VALUE_TYPE_NAMES[number] if 0 <= number < len(VALUE_TYPE_NAMES) else f"type {number}"


# What llama.cpp quantises to where rows are not whole blocks of a type. Source: src/llama-quant.cpp,
# tensor_type_fallback.
NARROW_TYPES: Final = {"Q2_K": "IQ4_NL", "Q3_K": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
