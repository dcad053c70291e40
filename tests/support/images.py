"""Images for tests, made of a seed."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image as Pillow

from modelyard.protocol.prompts import Chat, Image


def noise(seed: int, width: int = 64, height: int = 48) -> Image:
    """An image that no other seed gives."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image(width, height, pixels.tobytes(), "messages[0].content[1].image_url")


def encoded(image: Image, kind: str = "PNG", **options: Any) -> bytes:
    """The file of an image."""
    buffer = io.BytesIO()
    Pillow.frombytes("RGB", (image.width, image.height), image.pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def data_url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def question(*parts: str | Image) -> Chat:
    """One user message."""
    return Chat(({"role": "user", "content": parts},))
