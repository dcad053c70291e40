"""How the images of a request are loaded: each at its detail, few of them decoded at a time, none for those blind."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import cast

import pytest

from modelyard.api.images import ImageLoader, ImageReference, load
from modelyard.engine.question import Detail, Image
from modelyard.errors import TakesNoImages
from modelyard.yard.yard import Yard
from support.images import data_url, encoded, noise


def loader(*, sees: bool = True) -> ImageLoader:
    async def may_see(model: str) -> bool:
        return sees

    multimodal = SimpleNamespace(max_num_images=100, longest_edge=700)
    configured = SimpleNamespace(id="eyes", multimodal=multimodal)
    server = SimpleNamespace(allow_private_image_urls=False, image_folders=[])
    yard = SimpleNamespace(configured=lambda _: configured, may_see=may_see, config=SimpleNamespace(server=server))
    return ImageLoader(cast("Yard", yard))


def reference(number: int, detail: Detail = "auto", width: int = 800) -> ImageReference:
    return ImageReference(data_url(encoded(noise(number, width, 40))), detail, f"messages[{number}]")


@pytest.mark.parametrize(("detail", "edge"), [("auto", 700), ("high", 700), ("original", 700), ("low", 512)])
async def test_an_image_has_its_detail_and_as_many_pixels_as_that_leaves(detail: Detail, edge: int) -> None:
    asked = reference(1, detail)
    (image,) = (await loader().images([asked], None)).values()
    assert (image.width, image.detail, image.param) == (edge, detail, "messages[1]")


async def test_few_images_are_decoded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, lock = 0, 0, threading.Lock()
    decode = load.decode

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

    monkeypatch.setattr(load, "decode", slow)
    asked = [reference(number, width=50) for number in range(8)]
    found = await loader().images(asked, None)
    assert [found[one].param for one in asked] == [one.param for one in asked]
    assert most == load.DECODED_AT_ONCE


async def test_nothing_is_decoded_for_a_model_that_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[bytes] = []
    monkeypatch.setattr(load, "decode", lambda data, *_: begun.append(data))
    with pytest.raises(TakesNoImages, match="The model 'eyes' takes no images"):
        await loader(sees=False).images([reference(1)], None)
    assert begun == []
