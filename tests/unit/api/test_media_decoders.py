"""Files of requests are decoded in processes that are held to limits; what ends one is the file's own 400."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from PIL import Image as Pillow

from modelyard.api.media import audio, images
from modelyard.api.media.decoder_program import NICENESS
from modelyard.api.media.decoders import MAX_IMAGE_MEMORY_BYTES, Digits, MediaDecoders, sound_limits
from modelyard.errors import InvalidRequest, MediaUndecoded
from modelyard.system.bounded.cancellation import Cancellation
from support.images import data_url, encoded, noise
from support.sounds import audio_file, chirp

PARAM = "messages[0].content[1].image_url"
WAIT_S = 60.0
SMALL = encoded(noise(1, 64, 48))


@pytest.fixture(scope="module")
def decoders() -> Iterator[MediaDecoders]:
    decoders = MediaDecoders(limit_s=WAIT_S)
    yield decoders
    decoders.close()


def digits(data: bytes) -> Digits:
    url = data_url(data)
    return Digits(url, url.index(",") + 1)


def many_scans(scans: int) -> bytes:
    """A progressive JPEG that goes over its 16 megapixels again and again, in a few bytes each time."""
    buffer = io.BytesIO()
    Pillow.new("L", (4096, 4096), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    # The last scan stands between its marker and the end of the image.
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def large(edge: int = 4000) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGBA", (edge, edge), (255, 0, 0, 128)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("as_digits", [True, False])
def test_a_process_decodes_to_the_same_pixels(decoders: MediaDecoders, as_digits: bool) -> None:
    data = encoded(noise(7, 301, 203))
    found = decoders.image(digits(data) if as_digits else data, PARAM, 100, "high")
    assert found == images.decode(data, PARAM, 100, "high")


def test_a_process_decodes_to_the_same_samples(decoders: MediaDecoders) -> None:
    data = audio_file(chirp(0.3, rate=22_050), 22_050)
    assert decoders.audio(digits(data), "input", 16_000, 30.0) == audio.decode(data, "input", 16_000, 30.0)


def test_one_process_decodes_one_image_after_the_other(decoders: MediaDecoders) -> None:
    decoders.image(SMALL, PARAM, 64)
    before = decoders.pids
    decoders.image(SMALL, PARAM, 64)
    assert decoders.pids == before


def test_a_process_leaves_the_processor_to_streams(decoders: MediaDecoders) -> None:
    decoders.image(SMALL, PARAM, 64)
    assert os.getpriority(os.PRIO_PROCESS, decoders.pids[-1]) == os.getpriority(os.PRIO_PROCESS, 0) + NICENESS


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b"%PDF-1.7", "a PDF document"),
        (SMALL[:200], "damaged or cut off"),
        (b"hello", "is not known"),
    ],
)
def test_what_is_refused_is_refused_in_its_field(decoders: MediaDecoders, data: bytes, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as refused:
        decoders.image(data, PARAM, 64)
    assert refused.value.param == PARAM


def test_an_image_that_takes_too_long_costs_its_own_request_alone() -> None:
    decoders = MediaDecoders(limit_s=0.1)
    try:
        with pytest.raises(InvalidRequest, match=r"decoder did not end within 0\.1 s") as refused:
            decoders.image(many_scans(2000), PARAM, 64)
        assert refused.value.param == PARAM
        assert decoders.image(SMALL, PARAM, 64) == images.decode(SMALL, PARAM, 64)
    finally:
        decoders.close()


def test_an_image_that_takes_too_much_memory_costs_its_own_request_alone() -> None:
    decoders = MediaDecoders(WAIT_S, 32 << 20)
    try:
        with pytest.raises(InvalidRequest, match="decoder takes more than 32 MiB of memory") as refused:
            decoders.image(large(), PARAM, 64)
        assert refused.value.param == PARAM
        assert decoders.image(SMALL, PARAM, 64) == images.decode(SMALL, PARAM, 64)
    finally:
        decoders.close()


class Observed(Cancellation):
    """Tells when its request has a process."""

    def __init__(self) -> None:
        super().__init__()
        self.has_process = threading.Event()

    @contextmanager
    def covers(self, kill: Callable[[], None]) -> Iterator[bool]:
        with super().covers(kill) as may_start:
            self.has_process.set()
            yield may_start


def failure_of_an_image(decoders: MediaDecoders, end: Callable[[int, Cancellation], None]) -> BaseException | None:
    """What an image's request fails with if ``end`` is called with its process, which does not answer, and itself."""
    decoders.image(SMALL, PARAM, 64)
    (pid,) = decoders.pids
    os.kill(pid, signal.SIGSTOP)
    cancellation = Observed()
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(decoders.image, SMALL, PARAM, 64, "auto", cancellation)
        assert cancellation.has_process.wait(WAIT_S)
        end(pid, cancellation)
        return asked.exception(WAIT_S)


def test_the_death_of_a_process_is_the_images_fault() -> None:
    decoders = MediaDecoders(limit_s=WAIT_S)
    try:
        failure = failure_of_an_image(decoders, lambda pid, _: os.kill(pid, signal.SIGKILL))
        assert isinstance(failure, InvalidRequest)
        assert (failure.param, "ended its process (signal 9)" in str(failure)) == (PARAM, True)
        assert decoders.image(SMALL, PARAM, 64) == images.decode(SMALL, PARAM, 64)
    finally:
        decoders.close()


def test_a_cancelled_request_ends_its_process() -> None:
    decoders = MediaDecoders(limit_s=WAIT_S)
    try:
        failure = failure_of_an_image(decoders, lambda _, cancellation: cancellation.cancel())
        assert isinstance(failure, InvalidRequest)
        assert decoders.image(SMALL, PARAM, 64) == images.decode(SMALL, PARAM, 64)
    finally:
        decoders.close()


def test_a_request_that_was_cancelled_before_starts_no_process() -> None:
    decoders, cancellation = MediaDecoders(), Cancellation()
    cancellation.cancel()
    with pytest.raises(MediaUndecoded, match="it was cancelled"):
        decoders.image(SMALL, PARAM, 64, "auto", cancellation)
    assert decoders.pids == []


def test_an_answered_requests_cancellation_ends_nothing(decoders: MediaDecoders) -> None:
    cancellation = Cancellation()
    decoders.image(SMALL, PARAM, 64, "auto", cancellation)
    before = decoders.pids
    cancellation.cancel()
    decoders.image(SMALL, PARAM, 64)
    assert decoders.pids == before


@pytest.mark.parametrize("kind", sorted({"PNG", "WEBP", "AVIF"} & set(images.FORMATS)))
def test_the_memory_suffices_for_each_pixel_of_an_image_that_stays_as_large(kind: str) -> None:
    buffer = io.BytesIO()
    Pillow.new("RGBA", (2000, 2000), (0, 0, 255, 128)).save(buffer, kind)
    decoders = MediaDecoders(WAIT_S, 2000 * 2000 * MAX_IMAGE_MEMORY_BYTES // images.MAX_PIXELS)
    try:
        assert decoders.image(buffer.getvalue(), PARAM, 2000).width == 2000
    finally:
        decoders.close()


def test_sound_has_memory_for_its_samples_and_time_for_its_length() -> None:
    short, long = sound_limits(16_000, 1), sound_limits(16_000, 14_400)
    assert long[0] > short[0]
    assert long[1] - short[1] >= 3 * 4 * 16_000 * 14_399


def test_without_processes_the_calling_thread_decodes() -> None:
    decoders = MediaDecoders(in_processes=False)
    assert decoders.image(digits(SMALL), PARAM, 64) == images.decode(SMALL, PARAM, 64)
    assert decoders.pids == []
    with pytest.raises(InvalidRequest, match="not base64") as refused:
        decoders.image(Digits("data:;base64,*", 13), PARAM, 64)
    assert refused.value.param == PARAM
