"""Quantisation labels in file names, and the bits that they stand for."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

# The labels that llama.cpp's quantiser and well-known publishers put in file names; "UD-" marks Unsloth's mixes.
_LABEL: Final = re.compile(
    r"(?<![A-Za-z0-9])"
    r"((?:UD[-_]?)?(?:"
    r"IQ[1-4][-_]?(?:XXS|XS|S|M|NL)"
    r"|Q[2-8][-_]?K(?:[-_]?(?:XXL|XL|L|M|S|XS))?"
    r"|Q[1-8][-_]?[01](?:[-_][48][-_][48])?"
    r"|TQ[12][-_]?0"
    r"|MXFP4(?:[-_]?MOE)?|NVFP4"
    r"|BF16|FP?16|FP?32"
    r"))(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_BITS: Final = re.compile(r"(?:UD)?(?:IQ|Q|TQ|MXFP|NVFP|BF|F|FP)(\d+)")


def normalise(label: str) -> str:
    """Return a label in capital letters and digits: "q4_k_m" and "Q4-K-M" become "Q4KM"; "FP16" becomes "F16"."""
    return re.sub(r"^FP(?=16|32)", "F", re.sub(r"[^A-Z0-9]", "", label.upper()))


def is_label(text: str) -> bool:
    """Whether the whole text is one label."""
    return _LABEL.fullmatch(text) is not None


def label_in(name: str) -> str | None:
    """Return the last label in a file name, as it is written there; None if there is none."""
    found = _LABEL.findall(name)
    return found[-1] if found else None


def bits(label: str) -> int | None:
    """Return the nominal bits per weight: 4 for "Q4_K_M", "IQ4_XS" and "MXFP4", 16 for "BF16"; None if unknown."""
    match = _BITS.match(normalise(label))
    if match is None:
        return None
    # "Q40" and "Q41" are Q4_0 and Q4_1, not 40 bits.
    digits = match.group(1)
    return int(digits) if digits in ("16", "32") else int(digits[0])


_AUXILIARY: Final = re.compile(r"(?:^|[^a-z])(?:mmproj|imatrix|lora|adapter)(?:[^a-z]|$)", re.IGNORECASE)


def is_auxiliary(name: str) -> bool:
    """Whether a file name marks a projector, an importance matrix or an adapter: no model by itself."""
    return _AUXILIARY.search(PurePosixPath(name).name) is not None
