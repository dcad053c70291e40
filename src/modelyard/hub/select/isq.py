"""Maps levels of quantisation to types of GGUF files. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.formats.gguf import constants
from modelyard.hub.sources.quant_labels import normalise

# Average bits per weight of a file of each type, including embeddings and output layers, which have more.
# Source: llama.cpp, tools/quantize/README.md, the sizes of Llama 3.1 8B.
BITS: Final[Mapping[str, float]] = {
    "F32": 32.0, "F16": 16.0, "BF16": 16.0, "Q8_0": 8.5, "Q6_K": 6.56, "Q5_K_M": 5.70, "Q5_K_S": 5.57, "Q5_1": 6.0,
    "Q5_0": 5.6, "Q4_1": 5.1, "Q4_0": 4.66, "Q4_K_M": 4.89, "Q4_K_S": 4.67, "IQ4_NL": 4.68, "IQ4_XS": 4.46,
    "Q3_K_L": 4.30, "Q3_K_M": 4.00, "Q3_K_S": 3.64, "IQ3_M": 3.76, "IQ3_S": 3.66, "IQ3_XS": 3.50, "IQ3_XXS": 3.25,
    "Q2_K": 3.16, "Q2_K_S": 2.97, "IQ2_M": 2.93, "IQ2_S": 2.74, "IQ2_XS": 2.59, "IQ2_XXS": 2.38, "IQ1_M": 2.15,
    "IQ1_S": 2.00, "TQ1_0": 1.69, "TQ2_0": 2.06,
}  # fmt: skip

FULL_PRECISION: Final = ("BF16", "F16", "F32")

# Types to which llama.cpp quantises only with an importance matrix.
# Source: src/llama-quant.cpp, tensor_requires_imatrix.
NEEDS_IMATRIX: Final = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "Q2_K_S"})

# Types for a bare number of bits on a CPU: the type with the smallest error, unless another is as good and faster.
# Measured with AVX2, see docs/quantization.md; on ARM llama.cpp interleaves Q4_K to Q8_0 alike.
_NUMBERS: Final[Mapping[str, str]] = {
    "2": "Q2_K",  # llama.cpp quantises to the other types of 2 bits only with an importance matrix
    "3": "Q3_K_M",  # error 15.6 %; IQ3_S 17.2 %
    "4": "Q4_K_M",  # 7.4 %; IQ4_NL 7.8 %, 5 % faster for one stream and 10 % slower on prompts; Q4_0 9.0 %, 6 and 18 %
    "5": "Q5_K_M",  # 3.7 %; Q5_0 4.5 %, slower; Q5_1 3.9 %, slower
    "6": "Q6_K",  # the only type of 6 bits
    "8": "Q8_0",  # the only type of 8 bits
}

# The level names of mistral.rs, and the nearest type in GGUF: as many bits, and scales for blocks no larger.
_LEVELS: Final[Mapping[str, str]] = {
    **_NUMBERS,
    "q2k": "Q2_K", "q3k": "Q3_K_M", "q4k": "Q4_K_M", "q5k": "Q5_K_M", "q6k": "Q6_K", "q8k": "Q8_0",
    "q4_0": "Q4_0", "q4_1": "Q4_1", "q5_0": "Q5_0", "q5_1": "Q5_1", "q8_0": "Q8_0", "q8_1": "Q8_0",
    "hqq4": "Q4_K_M", "hqq8": "Q8_0", "fp8": "Q8_0", "f8q8": "Q8_0", "mxfp4": "IQ4_NL",
    "afq2": "Q2_K", "afq3": "Q3_K_M", "afq4": "Q4_K_M", "afq6": "Q6_K", "afq8": "Q8_0",
}  # fmt: skip

_WHY_NEAREST: Final[Mapping[str, str]] = {
    "q8k": "GGUF has no weights in Q8_K",
    "q8_1": "GGUF has no weights in Q8_1",
    "hqq4": "GGUF has no HQQ; Q4_K has a scale and a zero point for each 32 weights, HQQ for each 64",
    "hqq8": "GGUF has no HQQ; Q8_0 has as many bits",
    "fp8": "GGUF has no FP8; Q8_0 has as many bits",
    "f8q8": "GGUF has no F8Q8; Q8_0 is the same with a finer scale",
    "mxfp4": "llama.cpp makes no MXFP4 of dense weights; IQ4_NL is its other 4-bit type with uneven steps",
    **dict.fromkeys(
        ("afq2", "afq3", "afq4"), "GGUF has no AFQ; this type has a scale and an offset for each block of weights too"
    ),
    **dict.fromkeys(("afq6", "afq8"), "GGUF has no AFQ; this type has as many bits"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """The type that weights are converted to.

    Attributes:
        label: a type of a whole GGUF file, such as "Q4_K_M"; "" for the precision in which they are published.
        notice: why the label differs from the requested level; "" where it does not.
    """

    label: str
    notice: str = ""

    @property
    def is_full_precision(self) -> bool:
        """Whether the weights are not quantised."""
        return self.label in ("", *FULL_PRECISION)

    @property
    def file_type(self) -> int:
        """Number of the type in llama.cpp's enum llama_ftype."""
        return next(number for number, label in constants.FILE_TYPES.items() if label == self.label)


def target_of(level: str) -> Target:
    """Return the target of ``isq`` or ``quant``: a number of bits, a level name of mistral.rs, or a type label.

    Raises:
        UnusableModel: llama.cpp cannot quantise to that level.
    """
    word = level.strip().lower()
    label = _LEVELS.get(word)
    if label is not None:
        why = _WHY_NEAREST.get(word)
        return Target(label, f"{word} becomes {label}: {why}." if why else "")
    wanted = normalise(word)
    label = next((label for label in BITS if normalise(label) == wanted), None)
    if label is None:
        raise UnusableModel(
            f"'{level}' is nothing that weights can be quantised to. Choose one of {', '.join(_LEVELS)}."
        )
    return Target(label)
