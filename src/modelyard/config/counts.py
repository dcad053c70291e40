"""Parses counts of tokens such as "8k", "32K" and "1M", and lengths of contexts, which may be "auto"."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final, Literal

TOKENS_EXAMPLES: Final = 'one such as "8k" (8 × 1024) or "1M"'
THOUSANDS_EXAMPLES: Final = 'one such as "100k" (100 × 1000) or "1M"'

MAX_CONTEXT: Final = 2**31 - 1
CONTEXT_WORDING: Final = f'a whole number from 1 to {MAX_CONTEXT}, or {TOKENS_EXAMPLES}, or "auto"'

TOKENS_PATTERN: Final = r"^\s*\d{1,12}(\.\d{1,9})?\s*[kKmM]\s*$"
"""The texts that stand for counts, as a pattern of the JSON schema."""

_COUNT: Final = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*([km])\s*", re.ASCII | re.IGNORECASE)
_POWERS: Final = {"k": 1, "m": 2}


def read_tokens(value: Any) -> Any:
    """Return the tokens of a length with a unit, "8k" for 8192; anything else unchanged, for its key to check.

    The unit is 1024, as in the names of models: one of "32k" is trained on 32,768 tokens.
    """
    return _count(value, 1024)


def read_thousands(value: Any) -> Any:
    """Return the number of a quota with a unit, "100k" for 100,000; anything else unchanged, for its key to check."""
    return _count(value, 1000)


def _count(value: Any, unit: int) -> Any:
    match = _COUNT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    count = Decimal(match[1]) * unit ** _POWERS[match[2].lower()]
    return int(count) if count == int(count) else value


def read_context_length(value: Any) -> int | Literal["auto"] | None:
    """Return the tokens of a context, or "auto"; None where it is unset.

    Raises:
        ValueError: it is neither.
    """
    if value is None:
        return None
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto"
    tokens = read_tokens(value)
    if isinstance(tokens, int) and not isinstance(tokens, bool) and 1 <= tokens <= MAX_CONTEXT:
        return tokens
    raise ValueError(CONTEXT_WORDING)
