"""Images that are small as files and large as pixels, in numbers."""

from __future__ import annotations

import asyncio
import base64
import io
from typing import Any, Final

import httpx
from PIL import Image as Pillow

EDGE: Final = 7070
IMAGES: Final = 8
CLIENTS: Final = 20
ANSWER_S: Final = 300.0


def large_image() -> str:
    """A data URL of a picture of 50 million transparent pixels, of about 200 KiB."""
    buffer = io.BytesIO()
    Pillow.new("RGBA", (EDGE, EDGE), (255, 0, 0, 128)).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _asked(model: str, url: str) -> dict[str, Any]:
    content = [{"type": "image_url", "image_url": {"url": url}}] * IMAGES
    # Each is another URL, so that none is decoded once for all.
    parts = [{**part, "image_url": {"url": f"{url}{' ' * at}"}} for at, part in enumerate(content)]
    return {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": parts}]}


async def send_images(url: str, model: str) -> list[int]:
    """The statuses of the answers to clients that each send images at the same time."""
    body = _asked(model, large_image())
    async with httpx.AsyncClient(timeout=ANSWER_S, limits=httpx.Limits(max_connections=None)) as client:
        answers = await asyncio.gather(*(client.post(f"{url}/v1/chat/completions", json=body) for _ in range(CLIENTS)))
    return [answer.status_code for answer in answers]
