"""Parses which tensors of a model are put elsewhere than their layer."""

from __future__ import annotations

import re
from typing import Any, Final

OVERRIDES_WORDING: Final = 'a list of "PATTERN=PLACE", such as ["ffn_.*_exps=host", "blk[.]1[.]=CUDA1"]'

HOST_PLACE: Final = "host"
"""The place of tensors that stay in the machine's memory."""

# llama.cpp compiles each pattern again for each tensor. It takes 4,096 patterns (llama_max_tensor_buft_overrides).
MAX_OVERRIDES: Final = 64
MAX_PATTERN_LENGTH: Final = 256

# What regular expressions of Python have, and those of C++ do not, or read differently: named groups, flags and looks
# behind; \A, \Z and \x{..}; possessive quantifiers. Source: ECMA-262, edition 3, 15.10.
_PYTHON_ALONE: Final = re.compile(r"\(\?(?![:=!])|\\[AZxuUN]|[*+?}]\+")


def read_tensor_overrides(value: Any) -> Any:
    """Return pairs of pattern and place: "host", or the name of a device.

    Raises:
        ValueError: it is no list of patterns with places.
    """
    if value == ():
        return ()
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_OVERRIDES:
        raise ValueError(OVERRIDES_WORDING)
    return tuple(map(_pair, value))


def _pair(entry: Any) -> tuple[str, str]:
    pattern, _, place = entry.rpartition("=") if isinstance(entry, str) else ("", "", "")
    pattern, place = pattern.strip(), place.strip()
    if not pattern or not place or len(pattern) > MAX_PATTERN_LENGTH:
        raise ValueError(OVERRIDES_WORDING)
    # llama.cpp calls the host by the name of the processor.
    return pattern, HOST_PLACE if place.lower() in ("host", "cpu") else place


def pattern_fault(pattern: str) -> str | None:
    """Return what is wrong with a regular expression; None where Python and llama.cpp read it alike."""
    if found := _PYTHON_ALONE.search(pattern):
        return f"{found[0]} has no meaning in regular expressions of C++"
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as fault:
        return str(fault)
    return None
