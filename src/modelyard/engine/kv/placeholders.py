"""Placeholders for images and sound among token ids. Pure.

A projector turns an image or a clip of sound, or one part of it, into a span of embeddings, which takes as many cells
of the KV cache as it has tokens. In the tokens of a sequence the span is a run of negative numbers, which hash its
content and count up from its beginning: equal images have equal placeholders and different ones never do, so a prefix
with images is reused like any other. A prefix may end before or behind a span, never inside.

llama.cpp's server does the same (``server_tokens`` in tools/server/server-common.cpp), but with equal placeholders, and
keeps the spans in a map beside the tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from modelyard.protocol.prompts import Media

# A placeholder is ``-1 - (content, positions, index)``; the last two have _COUNT_BITS each. The content is a hash that
# is long enough against deliberate collisions.
_COUNT_BITS: Final = 24
_COUNT: Final = (1 << _COUNT_BITS) - 1
_CONTENT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """A part of an image, or of a clip of sound, that the model computes at once.

    Attributes:
        source: the image or the clip.
        index: index among the parts that the projector makes of its source, including the text between them.
        length: tokens, which take as many cells.
        positions: positions that the span takes: as many as tokens, or fewer where a model has positions in two
            dimensions (M-RoPE).
    """

    source: Media
    index: int
    length: int
    positions: int

    @property
    def placeholders(self) -> list[int]:
        """The placeholders of the span in the tokens of a sequence."""
        facts = self.source.digest + self.index.to_bytes(4) + self.length.to_bytes(4)
        content = int.from_bytes(hashlib.blake2b(facts, digest_size=_CONTENT_BYTES).digest())
        first = (content << _COUNT_BITS | self.positions) << _COUNT_BITS
        return [-1 - (first | index) for index in range(self.length)]


ImageSpans: TypeAlias = Mapping[int, ImageSpan]
"""The image spans of a sequence, by the first of their placeholders."""


def has_placeholders(tokens: Sequence[int]) -> bool:
    """Whether any of the tokens is a placeholder."""
    return bool(tokens) and min(tokens) < 0


def end_outside_span(tokens: Sequence[int], length: int) -> int:
    """Return the length of the longest prefix of at most ``length`` tokens that does not end inside an image span."""
    if length < len(tokens) and tokens[length] < 0:
        return length - _index(tokens[length])
    return length


def positions(tokens: Sequence[int], length: int) -> int:
    """Return the position behind the first ``length`` of ``tokens``, which do not end inside an image span."""
    return sum(token >= 0 or _index(token) < -1 - token >> _COUNT_BITS & _COUNT for token in tokens[:length])


def _index(placeholder: int) -> int:
    return -1 - placeholder & _COUNT


def text_run(tokens: Sequence[int], start: int, limit: int) -> int:
    """Return how many of ``tokens`` from ``start`` on are text, up to ``limit``."""
    return next((at for at, token in enumerate(tokens[start : start + limit]) if token < 0), limit)
