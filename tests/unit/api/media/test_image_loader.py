"""How the images of a request are loaded: each at its detail, few of them decoded at a time, none for those blind."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import cast

import pytest

from modelyard.api.media import ImageReference, MediaLoader, load
from modelyard.api.serving.request_memory import LEASE, RequestMemory
from modelyard.errors import ServerOverloaded, TakesNoImages
from modelyard.hub import Senses
from modelyard.protocol.prompts import Chat, Detail, Image
from modelyard.yard.requests.requests import TokenizeRequest
from modelyard.yard.yard import Yard
from support.images import data_url, encoded, noise


def loader(*, sees: bool = True) -> MediaLoader:
    async def check_senses(name: str, *, image: str, sound: None) -> Senses:
        if not sees:
            raise TakesNoImages(name, image)
        return Senses(sees=True)

    multimodal = SimpleNamespace(max_num_images=100, max_num_audios=1, max_audio_seconds=1, longest_edge=700)
    configured = SimpleNamespace(id="eyes", multimodal=multimodal)
    server = SimpleNamespace(allow_private_image_urls=False, image_folders=[])
    config = SimpleNamespace(server=server)
    yard = SimpleNamespace(configured=lambda _: configured, check_senses=check_senses, config=config)
    return MediaLoader(cast("Yard", yard))


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


async def test_few_images_are_decoded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, lock = 0, 0, threading.Lock()
    decode = load.decode_image

    def slow(data: bytes, param: str, longest_edge: int, detail: Detail) -> Image:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        image = decode(data, param, longest_edge, detail)
        with lock:
            running -= 1
        return image

    monkeypatch.setattr(load, "decode_image", slow)
    asked = [reference(number, width=50) for number in range(8)]
    found = await loaded(loader(), asked)
    assert [one.param for one in found] == [one.param for one in asked]
    assert most == load.DECODED_AT_ONCE


async def test_nothing_is_decoded_for_a_model_that_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[bytes] = []
    monkeypatch.setattr(load, "decode_image", lambda data, *_: begun.append(data))
    with pytest.raises(TakesNoImages, match="The model 'eyes' takes no images"):
        await loaded(loader(sees=False), [reference(1)])
    assert begun == []


async def test_images_count_for_the_memory_of_requests_as_large_as_they_are_decoded() -> None:
    memory = RequestMemory(1 << 30)
    with memory.lease() as lease:
        LEASE.set(lease)
        (one, two) = await loaded(loader(), [reference(1), reference(2)])
        assert memory.used == len(one.pixels) + len(two.pixels)


async def test_images_that_the_memory_has_no_room_for_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[bytes] = []
    monkeypatch.setattr(load, "decode_image", lambda data, *_: begun.append(data))
    memory = RequestMemory(4 << 20, max_wait_s=0.01)
    with memory.lease() as other, memory.lease() as lease:
        await other.grow(3 << 20)
        LEASE.set(lease)
        with pytest.raises(ServerOverloaded):
            await loaded(loader(), [reference(1), reference(2)])
    assert begun == []
