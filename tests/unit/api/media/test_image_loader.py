"""How the images of a request are loaded: each at its detail, few of them decoded at a time, none for those blind."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import cast

import pytest

from modelyard.api.media.decoders import MAX_AT_ONCE, EncodedFile, MediaDecoders
from modelyard.api.media.load import MAX_WAIT_S, ImageReference, MediaLoader
from modelyard.api.serving.request_memory import LEASE, RequestMemory
from modelyard.errors import InvalidRequest, MediaUndecoded, ServerOverloaded, TakesNoImages
from modelyard.hub import Modalities
from modelyard.protocol.prompts import Chat, Detail, Image
from modelyard.system.bounded.cancellation import Cancellation
from modelyard.yard.requests.requests import TokenizeRequest
from modelyard.yard.yard import Yard
from support.images import data_url, encoded, noise

WAIT_S = 20.0

# Decoded where the test runs: that processes do it is the matter of ``test_media_decoders``.
HERE = MediaDecoders(in_processes=False)


class Gate(MediaDecoders):
    """Decodes nothing until it is opened, or its request is cancelled."""

    def __init__(self) -> None:
        super().__init__(in_processes=False)
        self.open, self.begun = threading.Event(), threading.Semaphore(0)
        self.cancelled: list[bool] = []
        self.running, self.most, self._lock = 0, 0, threading.Lock()

    def image(
        self,
        encoded: EncodedFile,
        param: str,
        longest_edge: int,
        detail: Detail = "auto",
        cancellation: Cancellation | None = None,
    ) -> Image:
        assert cancellation is not None
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        with cancellation.covers(self.open.set):
            self.begun.release()
            assert self.open.wait(WAIT_S)
        self.cancelled.append(cancellation.is_cancelled)
        with self._lock:
            self.running -= 1
        return super().image(encoded, param, longest_edge, detail)


def loader(decoders: MediaDecoders = HERE, *, has_vision: bool = True, max_wait_s: float = MAX_WAIT_S) -> MediaLoader:
    async def check_modalities(name: str, *, image: str, sound: None) -> Modalities:
        if not has_vision:
            raise TakesNoImages(name, image)
        return Modalities(has_vision=True)

    multimodal = SimpleNamespace(max_num_images=100, max_num_audios=1, max_audio_seconds=1, longest_edge=700)
    configured = SimpleNamespace(id="eyes", multimodal=multimodal)
    server = SimpleNamespace(allow_private_image_urls=False, image_folders=[])
    config = SimpleNamespace(server=server)
    yard = SimpleNamespace(
        configured=lambda _: configured, checks=SimpleNamespace(check_modalities=check_modalities), config=config
    )
    return MediaLoader(cast("Yard", yard), decoders, max_wait_s)


async def loaded(loader: MediaLoader, references: list[ImageReference]) -> list[Image]:
    chat = Chat(({"role": "user", "content": tuple(references)},))
    resolved = await loader.resolved(TokenizeRequest(chat))
    assert isinstance(resolved.prompt, Chat)
    return list(resolved.prompt.messages[0]["content"])


def reference(number: int, detail: Detail = "auto", width: int = 800) -> ImageReference:
    return ImageReference(data_url(encoded(noise(number, width, 40))), detail, f"messages[{number}]")


@pytest.mark.parametrize(("detail", "edge"), [("auto", 700), ("high", 700), ("original", 700), ("low", 512)])
async def test_an_image_has_its_detail_and_as_many_pixels_as_that_leaves(detail: Detail, edge: int) -> None:
    asked = reference(1, detail)
    (image,) = await loaded(loader(), [asked])
    assert (image.width, image.detail, image.param) == (edge, detail, "messages[1]")


async def test_few_images_are_decoded_at_a_time() -> None:
    gate = Gate()
    asked = [reference(number, width=50) for number in range(8)]
    loading = asyncio.create_task(loaded(loader(gate), asked))
    for _ in range(MAX_AT_ONCE):
        assert await asyncio.to_thread(gate.begun.acquire, timeout=WAIT_S)
    gate.open.set()
    async with asyncio.timeout(WAIT_S):
        found = await loading
    assert [one.param for one in found] == [one.param for one in asked]
    assert gate.most == MAX_AT_ONCE


async def test_an_image_is_decoded_no_further_when_its_request_is_cancelled() -> None:
    gate = Gate()
    loading = asyncio.create_task(loaded(loader(gate), [reference(1)]))
    assert await asyncio.to_thread(gate.begun.acquire, timeout=WAIT_S)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    # What opens the gate is the cancellation.
    assert await asyncio.to_thread(gate.open.wait, WAIT_S)


async def test_an_image_that_waits_for_those_of_others_for_too_long_is_refused() -> None:
    gate = Gate()
    impatient = loader(gate, max_wait_s=0.01)
    with pytest.raises(MediaUndecoded, match=r"The image could not be decoded: .* took more than 0\.01 s\. Try again"):
        await loaded(impatient, [reference(1)])
    # The cancelled decode opened the gate: the place is free again.
    assert await asyncio.to_thread(gate.open.wait, WAIT_S)


async def test_the_same_image_twice_is_each_in_its_place() -> None:
    asked = [reference(1, width=50), reference(2, width=60), reference(1, width=50)]
    first, second, third = await loaded(loader(), asked)
    assert (first.width, second.width, third.width) == (50, 60, 50)


@pytest.mark.parametrize("url", ["data:image/png;base64", "data:image/png,AAAA", "data:" + "x" * 2000 + ";base64,AAAA"])
async def test_a_data_url_has_a_short_head_that_names_base64(url: str) -> None:
    with pytest.raises(InvalidRequest, match="must have the form data:image/png;base64,"):
        await loaded(loader(), [ImageReference(url, "auto", "messages[0]")])


@pytest.mark.parametrize("digits", ["iVBO!", "iVBOé", "iVB", "\ud800AAA"])
async def test_what_is_no_base64_is_refused_in_its_field(digits: str) -> None:
    with pytest.raises(InvalidRequest, match="not base64") as refused:
        await loaded(loader(), [ImageReference(f"data:image/png;base64,{digits}", "auto", "messages[3]")])
    assert refused.value.param == "messages[3]"


async def test_nothing_is_decoded_for_a_model_that_sees_nothing() -> None:
    gate = Gate()
    with pytest.raises(TakesNoImages, match="The model 'eyes' takes no images"):
        await loaded(loader(gate, has_vision=False), [reference(1)])
    assert gate.most == 0


async def test_images_count_for_the_memory_of_requests_as_large_as_they_are_decoded() -> None:
    memory = RequestMemory(1 << 30)
    with memory.lease() as lease:
        LEASE.set(lease)
        (one, two) = await loaded(loader(), [reference(1), reference(2)])
        assert memory.used == len(one.pixels) + len(two.pixels)


async def test_images_that_the_memory_has_no_room_for_are_not_decoded() -> None:
    gate = Gate()
    memory = RequestMemory(4 << 20, max_wait_s=0.01)
    with memory.lease() as other, memory.lease() as lease:
        await other.grow(3 << 20)
        LEASE.set(lease)
        with pytest.raises(ServerOverloaded):
            await loaded(loader(gate), [reference(1), reference(2)])
    assert gate.most == 0
