"""Decodes audio files into samples, within limits of size and memory; see ``decoder_program``."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import MIN_S, Audio

if TYPE_CHECKING:
    import soundfile

_FORMATS: Final = "WAV, MP3, FLAC or Ogg"

# OpenAI's limit for a file to be transcribed.
MAX_BYTES: Final = 25 * 2**20
MAX_CHANNELS: Final = 16
MIN_RATE, MAX_RATE = 4_000, 384_000

# Samples of all channels that are decoded in one block.
_BLOCK: Final = 2**18

# Offset and signature of the formats that libsndfile decodes here. Its other formats are old and little tested.
_SIGNATURES: Final = (
    (8, b"WAVE"),
    (0, b"fLaC"),
    (0, b"OggS"),
    (0, b"ID3"),
)

# Offset, signature and name of other files that clients send.
_OTHERS: Final = (
    (4, b"ftypM4A", "an M4A file"),
    (4, b"ftyp", "a video, or an M4A file"),
    (0, b"\x1a\x45\xdf\xa3", "a WebM or Matroska file"),
    (0, b"\xff\xf1", "an AAC file"),
    (0, b"\xff\xf9", "an AAC file"),
    (0, b"#!AMR", "an AMR file"),
    (0, b"MThd", "a MIDI file"),
    (0, b"FORM", "an AIFF file"),
    (0, b".snd", "an AU file"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (8, b"AVI ", "a video"),
    (0, b"%PDF", "a PDF document"),
    (0, b"<!DOCTYPE", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"<?xml", "an XML document"),
)

Samples = npt.NDArray[np.float32]


def decode(data: bytes, param: str, rate: int, max_s: float) -> Audio:
    """Decode the sound in ``data``; see ``samples_of``.

    Raises:
        InvalidRequest, MemoryError: as ``samples_of``.
    """
    return Audio(samples_of(data, param, rate, max_s).tobytes(), rate, param)


def samples_of(data: bytes, param: str, rate: int, max_s: float) -> Samples:
    """Return the samples of the sound in ``data``, mixed to one channel, at ``rate`` samples a second.

    The length in the file's header is not trusted: the file is decoded in blocks, up to ``max_s`` seconds.

    Raises:
        InvalidRequest: the file is no sound, has another format, or is damaged, too large, too long or too short.
        MemoryError: there is no memory to decode it.
    """
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"The audio has more than {MAX_BYTES // 2**20} MiB, which is the limit.", param)
    if not is_audio(data):
        raise InvalidRequest(f"{_refusal(data)} Send {_FORMATS}.", param)
    # Imported here: it loads libsndfile, which most servers never need.
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_shape(file.channels, file.samplerate, param)
            samples = _resampled(_blocks(file, param, max_s), file.samplerate, rate)
    except (InvalidRequest, MemoryError):
        raise
    except Exception as failure:
        # Decoders raise many kinds of exceptions for invalid files.
        raise InvalidRequest(
            f"The audio is damaged or cut off ({type(failure).__name__}). Send the whole file.", param
        ) from failure
    if len(samples) < MIN_S * rate:
        raise InvalidRequest(f"The audio lasts {len(samples) / rate:.3f} s; at least {MIN_S} s are needed.", param)
    return samples


def is_audio(data: bytes) -> bool:
    """Whether a file starts with the signature of a supported format."""
    if any(data[offset : offset + len(signature)] == signature for offset, signature in _SIGNATURES):
        return True
    # An MPEG frame: eleven set bits, then a valid version and layer (AAC has layer 0).
    return len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 and data[1] & 0x18 != 0x08 and data[1] & 6 != 0


def _check_shape(channels: int, rate: int, param: str) -> None:
    if channels > MAX_CHANNELS:
        raise InvalidRequest(
            f"The audio has {channels} channels, more than the limit of {MAX_CHANNELS}. Mix it down.", param
        )
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InvalidRequest(
            f"The audio has {rate} samples a second, but {MIN_RATE} to {MAX_RATE} are supported. Resample it.",
            param,
        )


def _blocks(file: soundfile.SoundFile, param: str, max_s: float) -> Iterator[Samples]:
    """Yield the mean of all channels, block by block."""
    frames, max_frames = 0, max_s * file.samplerate
    while len(block := file.read(_BLOCK // file.channels, dtype="float32", always_2d=True)):
        frames += len(block)
        if frames > max_frames:
            raise InvalidRequest(
                f"The audio is longer than the {max_s:g} s that this model takes. Cut it into parts, or raise "
                "max_audio_seconds in [models.multimodal].",
                param,
            )
        if not np.isfinite(block).all():
            raise InvalidRequest("The audio has samples that are not finite. Export it again.", param)
        yield block.mean(axis=1, dtype=np.float32)


def _resampled(blocks: Iterator[Samples], source: int, target: int) -> Samples:
    if source == target:
        parts = list(blocks)
    else:
        import soxr

        # Block by block: the file may have ten times as many samples as the result.
        stream = soxr.ResampleStream(source, target, 1, dtype="float32")
        parts = [stream.resample_chunk(block) for block in blocks]
        parts.append(stream.resample_chunk(np.empty(0, np.float32), last=True))
    return np.clip(np.concatenate(parts), -1.0, 1.0) if parts else np.empty(0, np.float32)


def _refusal(data: bytes) -> str:
    """Return why a file without a known signature is refused."""
    if not data:
        return "The audio is empty."
    for offset, signature, name in _OTHERS:
        if data[offset : offset + len(signature)] == signature:
            return f"This is {name}, which is not supported."
    return "The format of the audio is not known."
