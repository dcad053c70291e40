"""Clips are cut into windows, brought to a rate, and put together again."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.engine.llama import SpanSize
from modelyard.engine.loading.sound import parts_of_window, resampled, windows
from modelyard.protocol.prompts import Audio, Chat, Image, Text, Written, media_of

RATE = 1000


def clip(seconds: float) -> Audio:
    return Audio(np.linspace(-1, 1, round(seconds * RATE), dtype=np.float32).tobytes(), RATE, "here")


@pytest.mark.parametrize(
    ("seconds", "lengths"), [(0.2, [200]), (30, [30_000]), (30.001, [30_000, 100]), (65, [30_000, 30_000, 5_000])]
)
def test_a_clip_is_cut_into_windows(seconds: float, lengths: list[int]) -> None:
    parts = windows(clip(seconds), is_windowed=True)
    assert [part.length for part in parts] == lengths
    assert b"".join(part.samples for part in parts)[: len(clip(seconds).samples)] == clip(seconds).samples
    assert {(part.rate, part.param) for part in parts} == {(RATE, "here")}


def test_an_encoder_without_windows_hears_a_clip_at_once() -> None:
    assert [part.length for part in windows(clip(65), is_windowed=False)] == [65_000]


def test_what_is_too_short_gets_silence_behind_it() -> None:
    (part,) = windows(Audio(b"", RATE), is_windowed=True)
    assert part.samples == bytes(400)


def test_another_rate_has_another_number_of_samples() -> None:
    assert resampled(clip(1), RATE) == clip(1)
    slower = resampled(clip(1), 500)
    assert (slower.length, slower.rate, slower.param) == (500, 500, "here")


BEGIN, SOUND, END = [1], SpanSize(750, 750), [2]


def test_text_around_sound_stands_once_around_all_windows() -> None:
    parts = [BEGIN, SOUND, END]

    def shown(number: int) -> list[list[int] | SpanSize]:
        kept = parts_of_window(parts, is_windowed=True, is_first=number == 0, is_last=number == 2)
        assert all(parts[index] is part for index, part in kept)
        return [part for _, part in kept]

    assert [shown(number) for number in range(3)] == [[BEGIN, SOUND], [SOUND], [SOUND, END]]


def test_of_a_window_that_is_full_the_silent_one_behind_it_is_left_out() -> None:
    parts = [BEGIN, SOUND, SOUND, END]
    assert parts_of_window(parts, is_windowed=True, is_first=True, is_last=True) == [(0, BEGIN), (1, SOUND), (3, END)]
    # Where the encoder cuts by itself, all of its parts count.
    assert len(parts_of_window(parts, is_windowed=False, is_first=True, is_last=True)) == 4


def test_media_are_found_in_every_kind_of_prompt() -> None:
    beep, red = clip(0.1), Image(1, 1, b"\xff\0\0")
    assert media_of(Chat(({"role": "user", "content": ("a", beep)}, {"role": "user", "content": (red,)}))) == [
        beep,
        red,
    ]
    assert media_of(Written(("a", red, "b", beep))) == [red, beep]
    assert media_of(Chat(({"role": "user", "content": "a"},))) == media_of(Text("a")) == []
