"""What is taken for sound, what becomes of it, and what is refused before it takes memory."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from modelyard.api.media import audio
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Audio
from support.images import encoded, noise
from support.sounds import Samples, audio_file, chirp

PARAM = "messages[0].content[1].input_audio.data"
CLIP = chirp(0.5)


def decoded(data: bytes, rate: int = 16_000, longest_s: float = 60) -> Audio:
    return audio.decode(data, PARAM, rate, longest_s)


def samples_of(clip: Audio) -> Samples:
    return np.frombuffer(clip.samples, np.float32)


def refused(data: bytes, longest_s: float = 60) -> str:
    with pytest.raises(InvalidRequest) as refusal:
        decoded(data, longest_s=longest_s)
    assert refusal.value.param == PARAM
    assert refusal.value.code == "invalid_request"
    return str(refusal.value)


def tried(data: bytes) -> Audio | None:
    """The clip; None where it is refused, in words."""
    try:
        return decoded(data)
    except InvalidRequest:
        return None


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAVEX", "PCM_24"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
     ("MP3", None)],
)  # fmt: skip
def test_the_usual_formats_are_decoded(kind: str, subtype: str | None) -> None:
    clip = decoded(audio_file(CLIP, kind=kind, subtype=subtype))
    assert (clip.rate, clip.param) == (16_000, PARAM)
    # Lossy formats shift and pad a little; what is heard is the same.
    assert clip.duration_s == pytest.approx(0.5, abs=0.1)
    assert np.std(samples_of(clip)[2000:6000]) == pytest.approx(np.std(CLIP[2000:6000]), rel=0.15)
    if subtype == "FLOAT":
        assert clip.samples == CLIP.tobytes()


def test_channels_are_mixed_and_samples_brought_to_the_model_s_rate() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(96_000) / 192_000).astype(np.float32)
    eight = np.stack([tone * (channel % 2) for channel in range(8)], axis=1)
    clip = decoded(audio_file(eight, 192_000, subtype="FLOAT"))
    assert clip.length == 8_000
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8_000) / 16_000)
    assert np.abs(samples_of(clip) - expected)[200:-200].max() < 0.01


def test_the_same_file_gives_the_same_clip_in_any_number_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    data = audio_file(chirp(3, rate=44_100), 44_100, subtype="FLOAT")
    whole = decoded(data)
    monkeypatch.setattr(audio, "_BLOCK", 1000)
    assert np.abs(samples_of(decoded(data)) - samples_of(whole)).max() < 1e-5


def test_louder_samples_than_there_can_be_are_cut() -> None:
    assert np.abs(samples_of(decoded(audio_file(1e30 * CLIP, subtype="FLOAT")))).max() == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(value: float) -> None:
    broken = CLIP.copy()
    broken[777] = value
    assert "samples that are not finite" in refused(audio_file(broken, subtype="FLOAT"))


def wav_header(data_bytes: int, channels: int = 1, rate: int = 16_000) -> bytes:
    form = struct.pack("<HHIIHH", 1, channels, rate, 2 * channels * rate & 0xFFFFFFFF, 2 * channels, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 0xFFFFFFFF)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", data_bytes)
    )


def test_a_header_that_claims_hours_is_not_believed() -> None:
    assert "lasts 0.000 s" in refused(wav_header(2**32 - 2) + b"\0" * 10)
    clip = decoded(wav_header(2**32 - 2) + (CLIP * 32767).astype("<i2").tobytes())
    assert clip.length == len(CLIP)


def test_what_is_too_long_or_too_short_is_refused_by_what_is_decoded() -> None:
    said = refused(audio_file(chirp(3)), longest_s=2)
    assert "longer than the 2 s that this model takes" in said
    assert "max_audio_seconds" in said
    assert "lasts 0.050 s; at least 0.1 s are needed" in refused(audio_file(chirp(0.05)))
    assert "lasts 0.000 s" in refused(audio_file(np.zeros(0, np.float32)))


def test_silence_that_unpacks_to_hours_is_given_up_early() -> None:
    hours = audio_file(np.zeros(48_000 * 400, np.int16), 48_000, "FLAC")
    assert len(hours) < 2**20
    assert "longer than the 60 s" in refused(hours)


def test_odd_shapes_are_refused() -> None:
    assert "17 channels" in refused(audio_file(np.zeros((1600, 17), np.float32)))
    assert "2000000 samples a second" in refused(wav_header(3200, rate=2_000_000) + bytes(3200))
    assert "100 samples a second" in refused(wav_header(3200, rate=100) + bytes(3200))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "The audio is empty. Send WAV, MP3, FLAC or Ogg."),
        (encoded(noise(1)), "This is a PNG image, which is not supported."),
        (encoded(noise(1), "WEBP"), "This is a WebP image"),
        (b"\0\0\0\x20ftypM4A \0\0", "This is an M4A file"),
        (b"\x1a\x45\xdf\xa3\0\0\0", "This is a WebM or Matroska file"),
        (b"\xff\xf1\x50\x80", "This is an AAC file"),
        (b"FORM\0\0\0\0AIFF", "This is an AIFF file"),
        (b"<!DOCTYPE html>", "This is a web page"),
        (b"hello, world", "The format of the audio is not known."),
        (bytes(audio.MAX_BYTES + 1), "more than 25 MiB"),
    ],
)
def test_what_is_no_sound_is_told_what_it_is(data: bytes, message: str) -> None:
    assert message in refused(data)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_file_that_is_cut_off_is_answered_or_refused(kind: str) -> None:
    whole = audio_file(chirp(1), kind=kind)
    for part in (4, 8, 12, 20, 40, 60, 100, len(whole) // 2, len(whole) - 1):
        clip = tried(whole[:part])
        assert clip is None or clip.duration_s <= 1.1


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_file_with_garbage_in_it_is_answered_or_refused(kind: str) -> None:
    random = np.random.default_rng(5)
    whole = np.frombuffer(audio_file(chirp(1), kind=kind), np.uint8)
    for _ in range(40):
        broken = whole.copy()
        at = random.integers(0, len(broken), 1 + len(broken) // 50)
        broken[at] = random.integers(0, 256, len(at))
        clip = tried(broken.tobytes())
        assert clip is None or (clip.duration_s <= 60 and np.isfinite(samples_of(clip)).all())


def test_a_picture_with_the_beginning_of_sound_is_refused() -> None:
    assert "damaged or cut off" in refused(b"RIFF\0\0\0\0WAVE" + encoded(noise(1)))
    assert "damaged or cut off" in refused(b"fLaC" + bytes(500))
