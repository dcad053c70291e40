"""What becomes of the kinds of image files that people send: the right colours the right way up, or a clear refusal."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as Pillow
from PIL import ImageCms

from modelyard.api.media import file_types
from modelyard.api.media import images as decode
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Image
from support.images import encoded, noise

PARAM = "messages[0].content[1].image_url"
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
ORIENTATION = 0x0112


def decoded(data: bytes, edge: int = 2048) -> Image:
    return decode.decode(data, PARAM, edge)


def refused(data: bytes) -> str:
    with pytest.raises(InvalidRequest) as refusal:
        decoded(data)
    assert refusal.value.param == PARAM
    return str(refusal.value)


def saved(image: Pillow.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def array(image: Image) -> npt.NDArray[np.int32]:
    return np.frombuffer(image.pixels, np.uint8).reshape(image.height, image.width, 3).astype(np.int32)


def colour(image: Image, x: int, y: int) -> tuple[int, ...]:
    return tuple(int(value) for value in array(image)[y, x])


def is_close(found: tuple[int, ...], wanted: tuple[int, ...], tolerance: int = 12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(found, wanted, strict=True))


def halves(left: Any, right: Any, mode: str = "RGB", size: tuple[int, int] = (64, 32)) -> Pillow.Image:
    image = Pillow.new(mode, size, left)
    image.paste(right, (size[0] // 2, 0, size[0], size[1]))
    return image


def png(*chunks: tuple[bytes, bytes], width: int = 2, height: int = 1, bits: int = 8, kind: int = 2) -> bytes:
    """A PNG with chunks between its header and its end."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in ((b"IHDR", head), *chunks, (b"IEND", b"")))


# Colours


@pytest.mark.parametrize(
    ("image", "kind", "left", "right"),
    [
        (halves(0, 255, "L"), "PNG", (0, 0, 0), WHITE),
        (halves(0, 1, "1"), "PNG", (0, 0, 0), WHITE),
        (halves((100, 255), (0, 0), "LA"), "PNG", (100, 100, 100), WHITE),
        (halves((255, 0, 0, 255), (0, 0, 0, 0), "RGBA"), "PNG", RED, WHITE),
        (halves((255, 0, 0, 255), (0, 0, 255, 0), "RGBA"), "WEBP", RED, WHITE),
        (halves((255, 0, 0, 255), (0, 0, 255, 0), "RGBA"), "AVIF", RED, WHITE),
        (halves((0, 0, 255, 255), (255, 0, 0, 128), "RGBA"), "PNG", BLUE, (255, 127, 127)),
        (halves(RED, BLUE).convert("P"), "GIF", RED, BLUE),
        (halves(RED, BLUE).convert("P"), "PNG", RED, BLUE),
        (halves((0, 255, 255, 0), (0, 0, 0, 255), "CMYK"), "JPEG", (254, 0, 0), (0, 0, 0)),
        (halves(20, 200, "L"), "JPEG", (20, 20, 20), (200, 200, 200)),
    ],
)  # fmt: skip
def test_colours_are_those_that_people_see(
    image: Pillow.Image, kind: str, left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    found = decoded(saved(image, kind))
    assert is_close(colour(found, 4, 4), left)
    assert is_close(colour(found, 60, 28), right)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_a_transparent_colour_of_a_palette_is_white(kind: str) -> None:
    image = Pillow.new("P", (64, 32), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(0, (32, 0, 64, 32))
    data = saved(image, kind, transparency=0) if kind != "WEBP" else saved(_clear(image), kind, lossless=True)
    found = decoded(data)
    assert (colour(found, 4, 4), colour(found, 60, 28)) == (RED, WHITE)


def _clear(image: Pillow.Image) -> Pillow.Image:
    image.info["transparency"] = 0
    return image.convert("RGBA")


def test_a_transparent_shade_or_colour_is_white_with_sixteen_bits_too() -> None:
    grey = png((b"tRNS", struct.pack(">H", 0x1234)), (b"IDAT", zlib.compress(b"\0\x12\x34\x80\0")), bits=16, kind=0)
    assert decoded(grey).pixels == bytes([255] * 3 + [128] * 3)
    row = struct.pack(">6H", 0x1234, 0, 0, 0xFFFF, 0, 0)
    coloured = png((b"tRNS", struct.pack(">3H", 0x1234, 0, 0)), (b"IDAT", zlib.compress(b"\0" + row)), bits=16)
    assert decoded(coloured).pixels == bytes([255] * 3 + [255, 0, 0])


def test_an_interlaced_image_is_whole() -> None:
    # Pillow writes none: two pixels of Adam7 are in its first and sixth pass.
    rows = zlib.compress(b"\0" + bytes(RED) + b"\0" + bytes(BLUE))
    data = bytearray(png((b"IDAT", rows)))
    data[28] = 1
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    assert decoded(bytes(data)).pixels == bytes((*RED, *BLUE))


def swapped_profile() -> bytes:
    """A profile of sRGB whose first and third colours are each other's."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = bytearray(profile.replace(b"s\0R\0G\0B", b"s\0w\0a\0p").replace(b"sRGB built-in", b"swap built-in"))
    for at in range(132, 132 + 12 * struct.unpack(">I", profile[128:132])[0], 12):
        name = bytes(swapped[at : at + 4])
        swapped[at : at + 4] = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}.get(name, name)
    return bytes(swapped)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_an_own_profile_of_colours_is_honoured(kind: str) -> None:
    image = halves(RED, GREEN)
    found = decoded(saved(image, kind, icc_profile=swapped_profile()))
    assert is_close(colour(found, 4, 4), BLUE, 20)
    assert is_close(colour(found, 60, 28), GREEN, 20)


@pytest.mark.parametrize("profile", [b"no profile", bytes(200), swapped_profile()[:400]])
def test_a_profile_that_cannot_be_used_is_left_aside(profile: bytes) -> None:
    assert decoded(saved(halves(RED, GREEN), "PNG", icc_profile=profile)).pixels == halves(RED, GREEN).tobytes()


def test_a_profile_of_screens_changes_no_pixel() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = noise(1)
    assert decoded(encoded(picture, icc_profile=profile)).pixels == picture.pixels


# The right way up, and the first picture


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize(
    ("orientation", "left", "right"),
    [(1, RED, BLUE), (2, BLUE, RED), (3, BLUE, RED), (4, RED, BLUE), (6, RED, RED), (8, BLUE, BLUE)],
)
def test_an_image_is_turned_upright(kind: str, orientation: int, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    exif = Pillow.Exif()
    exif[ORIENTATION] = orientation
    found = decoded(saved(halves(RED, BLUE), kind, exif=exif))
    assert (found.width, found.height) == ((32, 64) if orientation in (6, 8) else (64, 32))
    assert is_close(colour(found, 4, 4), left, 24)
    assert is_close(colour(found, found.width - 4, 4), right, 24)


def test_damaged_notes_do_not_cost_the_image() -> None:
    picture = noise(1)
    for exif in (b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0" + bytes(range(200))):
        assert decoded(encoded(picture, exif=exif)).pixels == picture.pixels


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "AVIF", "PNG", "MPO"])
def test_of_several_pictures_the_first_is_shown(kind: str) -> None:
    data = saved(halves(RED, RED), kind, save_all=True, append_images=[halves(BLUE, BLUE), halves(GREEN, GREEN)])
    found = decoded(data)
    assert (found.width, found.height) == (64, 32)
    assert is_close(colour(found, 10, 10), RED, 24)


# Sizes


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "AVIF"])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (3, 2)])
def test_the_smallest_images_are_images(kind: str, size: tuple[int, int]) -> None:
    found = decoded(saved(Pillow.new("RGB", size, RED), kind))
    assert (found.width, found.height) == size
    assert is_close(colour(found, 0, 0), RED, 24)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {"compress_level": 1}), ("JPEG", {})])
def test_a_panorama_is_scaled_down(kind: str, options: dict[str, Any]) -> None:
    found = decoded(saved(halves(RED, BLUE, size=(20_000, 1_000)), kind, **options))
    assert (found.width, found.height) == (2048, 102)
    assert is_close(colour(found, 4, 4), RED)
    assert is_close(colour(found, 2040, 90), BLUE)


def test_what_is_too_thin_is_refused_with_what_helps() -> None:
    message = refused(saved(Pillow.new("RGB", (20_000, 20)), "PNG"))
    assert message == (
        "The image has 20000 x 20 pixels: it is more than 50 times as long as it is wide. Cut it into parts."
    )


# Bombs: what claims to be huge is refused by its header, and takes no memory


def claimed(kind: str) -> bytes:
    """A file of next to no bytes that says it has 16,000 x 16,000 pixels, or more."""
    side = 16_000
    match kind:
        case "PNG":
            return png((b"IDAT", zlib.compress(b"")), width=side, height=side)
        case "GIF":
            data = bytearray(saved(Pillow.new("P", (8, 8)), "GIF"))
            data[6:10] = struct.pack("<HH", side, side)
            return bytes(data)
        case "BMP":
            data = bytearray(saved(Pillow.new("RGB", (8, 8)), "BMP"))
            data[18:26] = struct.pack("<ii", side, side)
            return bytes(data)
        case "JPEG":
            data = bytearray(saved(Pillow.new("RGB", (8, 8)), "JPEG"))
            at = data.index(b"\xff\xc0")
            data[at + 5 : at + 9] = struct.pack(">HH", side, side)
            return bytes(data)
        case "WEBP":
            data = bytearray(saved(Pillow.new("RGB", (8, 8)), "WEBP"))
            at = data.index(b"\x9d\x01\x2a")
            data[at + 3 : at + 7] = struct.pack("<HH", side, side)
            return bytes(data)
    data = bytearray(saved(Pillow.new("RGB", (8, 8)), "AVIF"))
    at = data.index(b"ispe")
    data[at + 8 : at + 16] = struct.pack(">II", side, side)
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "JPEG", "WEBP", "AVIF"])
def test_a_bomb_is_refused_by_its_header(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Pillow.Image] = []
    monkeypatch.setattr(decode, "to_rgb", lambda image, _: begun.append(image))
    assert "50,000,000" in refused(claimed(kind))
    assert not begun


def test_pictures_behind_the_first_are_not_looked_at() -> None:
    # Ten thousand frames: all of them would take a minute.
    frame = saved(Pillow.new("P", (500, 500)), "GIF")
    start = frame.index(b"\x2c")
    data = frame[:start] + frame[start:-1] * 10_000 + b";"
    assert len(data) < decode.MAX_BYTES
    assert decoded(data).width == 500


@pytest.mark.parametrize("place", ["before", "behind"])
def test_packed_texts_and_profiles_are_not_unpacked_without_end(place: str) -> None:
    pixels = (b"IDAT", zlib.compress(b"\0" + bytes((*RED, *BLUE))))
    bomb = zlib.compress(bytes(60 * 2**20), 9)
    for name, content in ((b"zTXt", b"Comment\0\0" + bomb), (b"iTXt", b"Comment\0\1\0\0\0" + bomb)):
        chunks = [(name, content), pixels] if place == "before" else [pixels, (name, content)]
        assert refused(png(*chunks)) == (
            "The image contains texts or a colour profile that unpack to more than 1 MiB. Save it without them."
        )
    assert "more than 1 MiB" in refused(png((b"iCCP", b"name\0\0" + bomb), pixels))
    many = [(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**20)))] * 100
    assert "more than 1 MiB" in refused(png(*many, pixels))


# What it is instead


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xef\xbb\xbf  \n<SVG xmlns=''/>", "an SVG drawing"),
        (b"<?xml version='1.0'?><svg/>", "an XML document, such as an SVG drawing"),
        (b"\xff\x0a rest", "a JPEG XL image"),
        (b"\0\0\0\x0cJXL \r\n\x87\n rest", "a JPEG XL image"),
        (b"\0\0\0\x0cjP  \r\n\x87\n rest", "a JPEG 2000 image"),
        (b"\0\0\0\x18ftypheix\0\0\0\0mif1heix", "a HEIC image"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC image"),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0msf1hevc", "a HEIC image"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1jpeg", "a HEIF image"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "a video"),
        (b"RIFF\0\0\0\0WAVEfmt ", "sound"),
        (b"PK\3\4 rest", "a ZIP archive or office document"),
        (b"8BPS rest", "a Photoshop image"),
    ],
)  # fmt: skip
def test_what_is_no_image_of_ours_is_called_by_its_name(data: bytes, name: str) -> None:
    assert refused(data) == f"This is {name}, which is not supported. Send PNG, JPEG, GIF, BMP, WebP or AVIF."


def test_a_tiff_is_a_tiff_whoever_wrote_it() -> None:
    assert refused(saved(halves(RED, BLUE), "TIFF")).startswith("This is a TIFF image")


def test_an_avif_may_call_itself_an_image_of_any_kind() -> None:
    data = bytearray(saved(halves(RED, BLUE), "AVIF"))
    data[8:12] = b"mif1"
    assert file_types.is_avif(bytes(data))
    assert is_close(colour(decoded(bytes(data)), 4, 4), RED, 24)


def test_without_its_decoder_avif_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "DECODES_AVIF", False)
    monkeypatch.setattr(decode, "_FORMAT_NAMES", "PNG")
    message = refused(saved(halves(RED, BLUE), "AVIF"))
    assert message.startswith("This is an AVIF image, which this server's build of Pillow does not decode. Send PNG,")
