"""The names of quantisations that a configuration may use."""

from __future__ import annotations

from typing import Final

ISQ_NAMES: Final = (
    *("2", "3", "4", "5", "6", "8"),
    *("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q8_1"),
    *("q2k", "q3k", "q4k", "q5k", "q6k", "q8k"),
    *("hqq4", "hqq8", "fp8", "afq2", "afq3", "afq4", "afq6", "afq8", "f8q8", "mxfp4"),
)
"""What ``isq`` accepts: a number of bits, or a type of mistral.rs."""

GGUF_TYPES: Final = (
    *("q2_k", "q2_k_s", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k"),
    *("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq3_xxs", "iq3_xs", "iq3_s", "iq3_m"),
    *("iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "f16", "bf16", "f32"),
)
"""Types as published GGUF files are labelled. Source: llama.cpp, tools/quantize/quantize.cpp."""

QUANT_NAMES: Final = ("auto", *ISQ_NAMES, *GGUF_TYPES)
"""What ``quant`` accepts."""
