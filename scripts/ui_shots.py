"""Take the pictures of the page in docs/images/, of a real server with the demo models and some traffic.

    make ui-shots

Needs the demo weights, the built page (``make ui``) and what the tests of the page need. A page that logs an error, or
asks others than its server, fails.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from checked_server import ROOT, CheckFailed, Server, asked, serving
from demo_weights import prepare
from PIL import Image

from support.chat_page import ask, ended
from support.chromium import MISSING, Theme, View, find_chromium, started, visiting

if TYPE_CHECKING:
    from playwright.async_api import Browser

PICTURES: Final = ROOT / "docs" / "images"
QUESTIONS: Final = (
    "Why is the sky blue?",
    "Write a poem of four lines about the sea.",
    "What is the capital of France, and what is it known for?",
)
ANSWER_TOKENS: Final = 80
SETTLE_S: Final = 3.0
QUALITY: Final = 88
DESKTOP: Final = View(1440, 900)
PHONE: Final = View(390, 844, scale=2, is_phone=True)

# The budget holds one of the models with its context, so that they take turns.
CONFIG: Final = """
command = "serve"
default_model_id = "smollm2"
[memory]
budget = "700MB"
[[models]]
model_id = "{smollm2}"
alias = "smollm2"
[[models]]
model_id = "{gemma3}"
alias = "gemma3"
chat_template = "{template}"
"""


@dataclass(frozen=True)
class Shot:
    """A picture.

    Attributes:
        name: of its file.
        place: of the page.
        ready: a CSS selector, of which there are ``count`` elements once everything is there.
        theme, view: how it is looked at.
    """

    name: str
    place: str
    ready: str
    count: int
    theme: Theme = "light"
    view: View = DESKTOP


SHOTS: Final = (
    Shot("page-models", "models", ".track .block", 3),
    Shot("page-models-phone", "models", ".track .block", 3, "dark", PHONE),
    Shot("page-activity", "activity", "tbody tr", 4, "dark"),
    Shot("page-plots", "activity/plots", ".uplot canvas", 4),
)


def make_traffic(server: Server) -> None:
    """Have the models answer in turns, and one of them unloaded."""
    for model, question in (("smollm2", 0), ("smollm2", 1), ("gemma3", 0), ("smollm2", 2), ("smollm2", 0)):
        messages = [{"role": "user", "content": QUESTIONS[question]}]
        asked(server, "/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": ANSWER_TOKENS})
    asked(server, "/v1/models/unload", {"model_id": "smollm2", "mode": "park"})
    asked(server, "/v1/models/reload", {"model_id": "smollm2"})


async def take(chromium: Browser, server: Server, shot: Shot) -> None:
    """Write one picture."""
    async with visiting(chromium, server.url, shot.place, view=shot.view, theme=shot.theme) as visit:
        # A function that the page runs until it is true would be refused by the page's Content-Security-Policy.
        await visit.page.locator(shot.ready).nth(shot.count - 1).wait_for(state="attached")
        # What is polled is read a second time.
        await asyncio.sleep(SETTLE_S)
        write(shot.name, await visit.page.screenshot())


async def take_chat(chromium: Browser, server: Server) -> None:
    """Write the picture of a chat, whose question is sent by the keyboard as a person sends it."""
    async with visiting(chromium, server.url, "chat", view=DESKTOP) as visit:
        await ask(visit.page, QUESTIONS[0])
        await ended(visit.page)
        write("page-chat", await visit.page.screenshot())


def write(name: str, picture: bytes) -> None:
    """Write a picture, which is a PNG file, into the documentation as WebP."""
    PICTURES.mkdir(exist_ok=True)
    path = PICTURES / f"{name}.webp"
    Image.open(BytesIO(picture)).convert("RGB").save(path, "WEBP", quality=QUALITY, method=6)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e3:.0f} kB")


async def main() -> int:
    """Start, shoot, and return the exit status."""
    path = find_chromium()
    if path is None:
        raise CheckFailed(MISSING)
    weights = prepare(ROOT / ".weights")
    text = CONFIG.format(**weights, template=ROOT / "examples" / "gemma.jinja")
    with TemporaryDirectory() as folder, serving(Path(folder), text) as server:
        await asyncio.to_thread(make_traffic, server)
        async with started(path) as chromium:
            await take_chat(chromium, server)
            for shot in SHOTS:
                await take(chromium, server, shot)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except CheckFailed as error:
        sys.exit(f"ui_shots: {error}")
