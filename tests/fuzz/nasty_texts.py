"""Random texts of the kinds that tokenizers, templates and parsers trip over. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

# What a run is made of: one of each class that a pre-tokenizer tells apart, and pairs at which it looks ahead.
UNITS: Final = (
    "a", "A", "é", "ß", "İ", "中", "か", "ー", "가", "ש", "ع", "ไ", "ก็", "เ", "Ω", "ж", "अ", "क्", "1", "٣",
    "²", "Ⅷ", "½", "०", " ", "\n", "\r\n", "\r", "\t", "\x0b", "\xa0", "\u3000", "\u2028", "\u200b", "\u200d",
    "\ufeff", "\xad", "!", "~", "'", "'s", "'S", "'ll", "’s", "/", "\\", "-", "_", "#", "$", "…", "¿", "。",
    "、", "\u0301", "a\u0301", "\u20dd", "\u0e33", "😀", "👨\u200d👩\u200d👧", "🇩🇪", "🏽", "❤\ufe0f", "\x00",
    "\x01", "\x7f", "\x80", "\x9f", "\ufffd", "\uffff", "\U0010ffff", "\ue000", "\ud800", "\udfff", "𝟘", "𐐀",
    "aA", "Aa", "a1", "1a", "1 ", " 1", "12,", "1.", "a ", " a", "!a", "a!", " \n", "\n ", "  \n", "\t\n",
    "A1! ", ".\n", "//\n", "the quick brown fox ", "<|x|>", "<s>", "</s>", "<0x0A>", "<|im_start|>",
    "<|im_end|>", "<|endoftext|>", "<|endoftext", "[INST]", "[UNK]", "▁", "Ġ", "Ċ", "##a", "<unk>", "{{", "{%",
    "\"", "\\u0000", "`", "```", "<tool_call>", "<think>", "null", "ACGT", "<dna>",
)  # fmt: skip
_CODE_POINTS: Final = 0x110000


def nasty_text(rng: random.Random, most: int) -> str:
    """A text of 1 to about ``most`` characters; short ones are as likely as long ones."""
    length = max(1, int(most ** rng.random()))
    return rng.choice(_MAKERS)(rng, length)[: max(1, most)]


def _run(rng: random.Random, length: int) -> str:
    unit = rng.choice(UNITS)
    return unit * (length // len(unit) + 1)


def _runs(rng: random.Random, length: int) -> str:
    """Runs of several units, of all lengths."""
    parts: list[str] = []
    left = length
    while left > 0:
        part = _run(rng, max(1, int(left ** rng.random())))
        parts.append(part)
        left -= len(part)
    return "".join(parts)


def _mixture(rng: random.Random, length: int) -> str:
    few = rng.choices(UNITS, k=rng.randint(2, 12))
    return "".join(rng.choices(few, k=length))


def _anything(rng: random.Random, length: int) -> str:
    top = rng.choice((0x80, 0x800, 0x3000, 0x10000, _CODE_POINTS))
    return "".join(chr(rng.randrange(top)) for _ in range(length))


def _interrupted(rng: random.Random, length: int) -> str:
    """A long run with something else now and then."""
    unit, other = rng.choice(UNITS), rng.choice(UNITS)
    pieces = [unit] * length
    for _ in range(rng.randint(1, 1 + length // 50)):
        pieces[rng.randrange(length)] = other
    return "".join(pieces)


def _numbers(rng: random.Random, length: int) -> str:
    return "".join(str(rng.randrange(10)) if rng.random() < 0.95 else rng.choice(",. \n-e") for _ in range(length))


_MAKERS: Final[tuple[Callable[[random.Random, int], str], ...]] = (
    _run,
    _runs,
    _mixture,
    _anything,
    _interrupted,
    _numbers,
)
