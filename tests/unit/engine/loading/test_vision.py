"""What an engine keeps of pictures: the same one is encoded once, for as long as there is room."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from modelyard.engine.kv.placeholders import ImageSpan
from modelyard.engine.llama import PreparedImage, Projector, SpanEmbeddings, SpanSize
from modelyard.engine.loading import vision
from modelyard.engine.loading.vision import Vision
from modelyard.protocol.prompts import Image
from support.images import noise

TOKENS, WIDTH = 16, 64
PICTURE_BYTES = TOKENS * WIDTH * 4


class Prepared:
    parts = ([1], SpanSize(TOKENS, TOKENS), [2])

    def __init__(self, live: list[Any]) -> None:
        self._live = live
        live.append(self)

    def free(self) -> None:
        self._live.remove(self)


class Encoder:
    """A projector that computes nothing and counts.

    Attributes:
        live: what it has prepared that is not freed.
    """

    compute_bytes = 0
    is_causal = True
    can_see, can_hear = True, False

    def __init__(self) -> None:
        self.prepared = 0
        self.encoded = 0
        self.live: list[Prepared] = []

    def prepare(self, image: Image) -> PreparedImage:
        self.prepared += 1
        return cast("PreparedImage", Prepared(self.live))

    def encode(self, prepared: PreparedImage, index: int) -> SpanEmbeddings:
        self.encoded += 1
        return SpanEmbeddings(np.full((TOKENS, WIDTH), self.encoded, np.float32), is_causal=True)

    def free(self) -> None:
        pass


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


def seeing(encoder: Encoder) -> Vision:
    return Vision(cast("Projector", encoder), 0, 512)


def picture(sees: Vision, seed: int) -> ImageSpan:
    (found,) = (part for part in sees.parts(noise(seed)) if isinstance(part, ImageSpan))
    return found


def test_the_same_picture_is_encoded_once_whoever_brings_it(encoder: Encoder) -> None:
    sees = seeing(encoder)
    # Both requests are read before either is shown.
    first, second = picture(sees, 1), picture(sees, 1)
    assert sees.embeddings(first) is sees.embeddings(second)
    later = picture(sees, 1)
    sees.embeddings(later)
    assert (sees.encoded, sees.reused, encoder.encoded, encoder.prepared) == (1, 2, 1, 1)
    sees.embeddings(picture(sees, 2))
    assert (sees.encoded, sees.reused) == (2, 2)


def test_the_pictures_shown_last_are_kept_within_bounds(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision, "KEPT_EMBEDDINGS_BYTES", 2 * PICTURE_BYTES)
    sees = seeing(encoder)
    for seed in (1, 2, 1, 3, 1, 2):
        sees.embeddings(picture(sees, seed))
    # The second gave way to the third, since the first was shown again in between.
    assert (sees.encoded, sees.reused) == (4, 2)


def test_one_that_is_too_large_to_be_kept_is_shown_all_the_same(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vision, "KEPT_EMBEDDINGS_BYTES", PICTURE_BYTES - 1)
    sees = seeing(encoder)
    assert [sees.embeddings(picture(sees, 1)).values[0, 0] for _ in range(2)] == [1.0, 2.0]


def test_no_more_than_one_prepared_image_is_held(encoder: Encoder) -> None:
    sees = seeing(encoder)
    pictures = [picture(sees, seed) for seed in range(5)]
    for each in pictures:
        sees.embeddings(each)
        assert len(encoder.live) == 1
    sees.free()
    assert encoder.live == []
