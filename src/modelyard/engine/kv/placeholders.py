"""Images and sound among token ids: placeholders that stand for what they become. Pure.

A picture is what a projector makes of an image or a clip of sound, or of one part of it: a run of embeddings that takes
as many cells of the KV cache as it has tokens. In the tokens of a sequence it is a run of negative numbers, which name
its content and count up from its beginning: equal images have equal placeholders, so that a prefix with images is
reused like any other, and different ones never do. A prefix may end before a picture or behind it, never inside.

As in llama.cpp's server (``server_tokens`` in tools/server/server-common.cpp), where the placeholders are all alike and
what they stand for is looked up beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from modelyard.protocol.prompts import Media

# A placeholder is ``-1 - (content, positions, index)``, where the last two have so many bits. The content has as many
# as it takes for nobody to find an image that passes for another one.
_COUNT_BITS: Final = 24
_COUNT: Final = (1 << _COUNT_BITS) - 1
_CONTENT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """A part of an image, or of a clip of sound, that is shown to the model at once.

    Attributes:
        source: the image or the clip.
        index: among the parts that the projector makes of its source, text between them included.
        length: tokens, which are as many cells.
        positions: by which the sequence is longer behind it: as many as tokens, or fewer where a model has positions
            in two dimensions (M-RoPE).
    """

    source: Media
    index: int
    length: int
    positions: int

    @property
    def placeholders(self) -> list[int]:
        """Its ids in the tokens of a sequence."""
        facts = self.source.digest + self.index.to_bytes(4) + self.length.to_bytes(4)
        content = int.from_bytes(hashlib.blake2b(facts, digest_size=_CONTENT_BYTES).digest())
        first = (content << _COUNT_BITS | self.positions) << _COUNT_BITS
        return [-1 - (first | index) for index in range(self.length)]


Pictures: TypeAlias = Mapping[int, ImageSpan]
"""The pictures of a sequence by the first of their placeholders."""


def has_pictures(tokens: Sequence[int]) -> bool:
    """Whether some of the tokens are placeholders."""
    return bool(tokens) and min(tokens) < 0


def outside(tokens: Sequence[int], length: int) -> int:
    """The longest beginning of ``tokens`` of at most ``length`` that ends inside no picture."""
    if length < len(tokens) and tokens[length] < 0:
        return length - _index(tokens[length])
    return length


def positions(tokens: Sequence[int], length: int) -> int:
    """The position of what follows the first ``length`` of ``tokens``, which end inside no picture."""
    return sum(token >= 0 or _index(token) < -1 - token >> _COUNT_BITS & _COUNT for token in tokens[:length])


def _index(placeholder: int) -> int:
    return -1 - placeholder & _COUNT


def text_run(tokens: Sequence[int], start: int, most: int) -> int:
    """How many of ``tokens`` from ``start`` on are text, up to ``most``."""
    return next((at for at, token in enumerate(tokens[start : start + most]) if token < 0), most)
