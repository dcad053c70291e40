"""Where images may come from, and what of them is decoded."""

from __future__ import annotations

import asyncio
import io
import os
import struct
import zlib
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image as Pillow

from modelyard.api.media import fetch, images, local
from modelyard.api.media.kinds import AUDIO, IMAGE
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Image
from support.images import encoded, noise

PARAM = "messages[0].content[1].image_url"
PICTURE = noise(1)


def refused(data: bytes, edge: int = 2048) -> str:
    with pytest.raises(InvalidRequest) as refusal:
        images.decode(data, PARAM, edge)
    assert refusal.value.param == PARAM
    assert refusal.value.code == "invalid_request"
    return str(refusal.value)


# Addresses


async def test_a_name_is_refused_if_any_of_its_addresses_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(2, 1, 6, "", ("1.1.1.1", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    with pytest.raises(InvalidRequest, match="leads to a private address") as refusal:
        await fetch.Fetcher().fetch("http://example.com/x.png", PARAM, IMAGE, may_be_private=False)
    assert "10.0.0.1" not in str(refusal.value)


async def test_the_connection_is_made_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def resolve(host: str, *_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        asked.append(host)
        return [(2, 1, 6, "", ("1.1.1.1", 443))]

    sent: list[httpx2.Request] = []

    async def send(_client: object, request: httpx2.Request, **_: object) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(200, stream=httpx2.ByteStream(b"image"), request=request)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    monkeypatch.setattr(httpx2.AsyncClient, "send", send)
    url = "https://images.example.com/a.png?b=c"
    assert await fetch.Fetcher().fetch(url, PARAM, IMAGE, may_be_private=False) == b"image"
    assert asked == ["images.example.com"]
    assert str(sent[0].url) == "https://1.1.1.1/a.png?b=c"
    assert sent[0].headers["host"] == "images.example.com"
    assert sent[0].extensions["sni_hostname"] == "images.example.com"


# Local files


def test_a_file_inside_of_an_allowed_folder_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a b.png"
    file.write_bytes(b"x")
    for url in (str(file), f"file://{tmp_path}/a%20b.png", f"file://localhost{tmp_path}/a%20b.png"):
        assert local.is_local(url)
        assert local.read_local(url, PARAM, IMAGE, [tmp_path]) == b"x"


@pytest.mark.parametrize(
    "url",
    ["/etc/passwd", "/etc/no-such-file", "{0}/../outside.png", "file://{0}/%2e%2e/outside.png", "{0}/link.png",
     "{0}/loop.png", "{0}/a\0b", "file://elsewhere{0}/in.png", "file:in.png", "{0}-sibling/x.png"],
)  # fmt: skip
def test_what_is_outside_is_refused_whether_it_is_there_or_not(tmp_path: Path, url: str) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "in.png").write_bytes(b"x")
    (tmp_path / "outside.png").write_bytes(b"secret")
    (tmp_path / "allowed-sibling").mkdir()
    (tmp_path / "allowed-sibling" / "x.png").write_bytes(b"secret")
    (allowed / "link.png").symlink_to(tmp_path / "outside.png")
    (allowed / "loop.png").symlink_to(allowed / "loop.png")
    with pytest.raises(InvalidRequest) as refusal:
        local.read_local(url.format(allowed), PARAM, IMAGE, [allowed])
    assert str(refusal.value) == "The file is not inside a folder that this server reads images from."


def test_without_folders_no_file_is_read() -> None:
    with pytest.raises(InvalidRequest, match="This server reads no local files"):
        local.read_local("/etc/passwd", PARAM, IMAGE, [])


def test_sound_has_folders_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="set audio_folders in"):
        local.read_local("/etc/passwd", PARAM, AUDIO, [])
    with pytest.raises(InvalidRequest, match="that this server reads audio from"):
        local.read_local("/etc/passwd", PARAM, AUDIO, [tmp_path])


def test_a_pipe_or_a_folder_is_no_image_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("pipe", "not a regular file"), ("", "Is a directory")):
        with pytest.raises(InvalidRequest, match=message):
            local.read_local(f"{tmp_path}/{name}", PARAM, IMAGE, [tmp_path])


# Decoding


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "JPEG", "WEBP", "AVIF"])
def test_the_usual_formats_are_decoded(kind: str) -> None:
    found = images.decode(encoded(PICTURE, kind), PARAM, 2048)
    assert (found.width, found.height, found.param) == (PICTURE.width, PICTURE.height, PARAM)
    if kind in ("PNG", "BMP"):
        assert found.pixels == PICTURE.pixels


def test_a_large_image_is_scaled_down_in_its_proportions() -> None:
    found = images.decode(encoded(noise(1, 300, 200)), PARAM, 100)
    assert (found.width, found.height) == (100, 67)


def test_a_photograph_is_turned_upright() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    found = images.decode(encoded(PICTURE, "JPEG", exif=exif), PARAM, 2048)
    assert (found.width, found.height) == (PICTURE.height, PICTURE.width)


def test_what_is_transparent_is_white() -> None:
    buffer = io.BytesIO()
    Pillow.new("RGBA", (2, 1), (255, 0, 0, 0)).save(buffer, "PNG")
    assert images.decode(buffer.getvalue(), PARAM, 64).pixels == b"\xff" * 6


def test_sixteen_bits_a_pixel_are_made_eight() -> None:
    buffer = io.BytesIO()
    Pillow.fromarray(np.array([[0, 0x8000, 0xFFFF]], np.uint16)).save(buffer, "PNG")
    assert images.decode(buffer.getvalue(), PARAM, 64).pixels == bytes([0] * 3 + [128] * 3 + [255] * 3)


def claimed_png(width: int, height: int) -> bytes:
    """A PNG that says so of its size, and holds next to nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (8_000, 7_000), (2**31 - 1, 2**31 - 1)])
def test_a_huge_image_is_refused_by_its_header(width: int, height: int) -> None:
    assert "pixels" in refused(claimed_png(width, height)) or "damaged" in refused(claimed_png(width, height))


def test_a_strip_is_refused() -> None:
    assert "more than 50 times as long as it is wide" in refused(claimed_png(6000, 10))


def test_a_file_that_is_too_large_is_refused_before_it_is_opened() -> None:
    assert refused(bytes(images.MAX_BYTES + 1)) == "The image has more than 20 MiB, which is the limit."


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_refused(kind: str, part: float) -> None:
    data = encoded(noise(1, 256, 256), kind)
    assert "damaged or cut off" in refused(data[: int(part * len(data))])
    # Even where nothing but the first bytes have come.
    assert "damaged or cut off" in refused(data[:16])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "The image is empty."),
        (b"hello", "The format of the image is not known."),
        (b"%PDF-1.7", "This is a PDF document, which is not supported."),
        (b"<svg xmlns=''/>", "This is an SVG drawing, which is not supported."),
        (b"II*\0rest", "This is a TIFF image, which is not supported."),
        (b"\0\0\0\x20ftypheic", "This is a HEIC image, which is not supported."),
        (b"\0\0\0\x20ftypisom", "This is a video, which is not supported."),
    ],
)
def test_other_formats_are_refused_by_name(data: bytes, message: str) -> None:
    assert refused(data) == f"{message} Send PNG, JPEG, GIF, BMP, WebP or AVIF."


def test_damaged_bytes_are_refused_and_nothing_else_happens() -> None:
    random = np.random.default_rng(3)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "AVIF"):
        whole = encoded(noise(2, 40, 40), kind)
        for _ in range(60):
            data = bytearray(whole)
            for at in random.integers(0, len(data), 8):
                data[at] = random.integers(0, 256)
            try:
                found = images.decode(bytes(data), PARAM, 64)
            except InvalidRequest:
                continue
            assert isinstance(found, Image)
