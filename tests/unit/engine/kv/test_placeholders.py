from __future__ import annotations

import pytest

from modelyard.engine.kv.placeholders import ImageSpan, end_outside_span, has_placeholders, positions, text_run
from modelyard.protocol.prompts import Image

RED = Image(1, 1, b"\xff\0\0")
BLUE = Image(1, 1, b"\0\0\xff")


def picture(image: Image = RED, index: int = 0, length: int = 4, positions: int | None = None) -> ImageSpan:
    return ImageSpan(image, index, length, length if positions is None else positions)


def test_equal_images_have_equal_placeholders_and_others_share_none():
    other_param = Image(1, 1, b"\xff\0\0", "messages[3].content[0].image_url")
    assert picture().placeholders == picture(other_param).placeholders
    different = [picture(), picture(BLUE), picture(index=1), picture(length=5), picture(positions=2)]
    all_ids = [token for one in different for token in one.placeholders]
    assert len(set(all_ids)) == len(all_ids)
    assert all(token < 0 for token in all_ids)


def test_the_same_bytes_in_another_shape_are_another_image():
    wide, high = Image(2, 1, bytes(6)), Image(1, 2, bytes(6))
    assert wide.digest != high.digest


def test_an_image_has_three_bytes_a_pixel():
    with pytest.raises(ValueError, match="5 bytes are not 2 x 1 pixels"):
        Image(2, 1, bytes(5))


def test_a_prefix_ends_before_a_picture_or_behind_it():
    tokens = [7, 8, *picture().placeholders, 9]
    assert [end_outside_span(tokens, length) for length in range(len(tokens) + 1)] == [0, 1, 2, 2, 2, 2, 6, 7]


def test_between_two_pictures_a_prefix_may_end():
    tokens = [*picture().placeholders, *picture(BLUE).placeholders]
    assert [end_outside_span(tokens, length) for length in (3, 4, 5, 8)] == [0, 4, 4, 8]


def test_a_picture_takes_as_many_positions_as_it_says():
    tokens = [7, *picture(length=6, positions=3).placeholders, 8, *picture(BLUE).placeholders, 9]
    assert positions(tokens, 1) == 1
    assert positions(tokens, 7) == 4
    assert positions(tokens, 8) == 5
    assert positions(tokens, len(tokens)) == 10


def test_text_runs_up_to_the_next_picture():
    tokens = [7, 8, *picture().placeholders, 9, 9]
    assert text_run(tokens, 0, 5) == 2
    assert text_run(tokens, 0, 1) == 1
    assert text_run(tokens, 2, 5) == 0
    assert text_run(tokens, 6, 2) == 2


def test_text_has_no_pictures():
    assert not has_placeholders([])
    assert not has_placeholders([0, 5])
    assert has_placeholders([5, *picture().placeholders])
