"""Take the pictures of the page in docs/images/, of a real server with the demo models and some traffic.

    make ui-shots

Needs the demo weights, the built page (``make ui``) and the system's Chromium.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from browser import Browser, BrowserError, Page, browser
from checked_server import ROOT, CheckFailed, Server, asked, serving
from demo_weights import prepare

PICTURES: Final = ROOT / "docs" / "images"
QUESTIONS: Final = (
    "Why is the sky blue?",
    "Write a poem of four lines about the sea.",
    "What is the capital of France, and what is it known for?",
)
ANSWER_TOKENS: Final = 80
MAX_ANSWER_S: Final = 120.0

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
    """A picture: its name, the place in the page, and how it is looked at."""

    name: str
    place: str
    ready: str
    dark: bool = False
    is_phone: bool = False


HAS_TRACKS: Final = "document.querySelectorAll('.track .block').length > 2"
SHOTS: Final = (
    Shot("page-models", "models", HAS_TRACKS),
    Shot("page-models-phone", "models", HAS_TRACKS, dark=True, is_phone=True),
    Shot("page-activity", "activity", "document.querySelectorAll('tbody tr').length > 3", dark=True),
    Shot("page-plots", "activity/plots", "document.querySelectorAll('.uplot canvas').length > 3"),
)


def make_traffic(server: Server) -> None:
    """Have the models answer in turns, and one of them unloaded."""
    for model, question in (("smollm2", 0), ("smollm2", 1), ("gemma3", 0), ("smollm2", 2), ("smollm2", 0)):
        messages = [{"role": "user", "content": QUESTIONS[question]}]
        asked(server, "/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": ANSWER_TOKENS})
    asked(server, "/v1/models/unload", {"model_id": "smollm2", "mode": "park"})
    asked(server, "/v1/models/reload", {"model_id": "smollm2"})


async def take(page: Page, server: Server, shot: Shot) -> None:
    """Write one picture."""
    if shot.is_phone:
        await page.resize(390, 844, is_phone=True, scale=2)
    else:
        await page.resize(1440, 900)
    await page.prefer(dark=shot.dark)
    await page.go(f"{server.url}/ui/#/{shot.place}")
    await page.wait(shot.ready)
    # Transitions of half a second, and a second reading of everything that is polled.
    await asyncio.sleep(3)
    write(shot.name, await page.shoot())


async def take_chat(page: Page, server: Server) -> None:
    """Write the picture of a chat, whose question is sent by the keyboard as a person sends it."""
    await page.resize(1440, 900)
    await page.prefer(dark=False)
    await page.go(f"{server.url}/ui/#/chat?model=smollm2&prompt={QUESTIONS[0].replace(' ', '%20')}")
    await page.wait("document.querySelector('textarea')?.value")
    await page.run("document.querySelector('textarea').focus()")
    await page.press("Enter")
    await page.wait("document.querySelector('textarea')?.value === ''")
    with suppress(BrowserError):
        await page.wait("document.querySelector('.answer[aria-busy=false]')", MAX_ANSWER_S)
    write("page-chat", await page.shoot())


def write(name: str, picture: bytes) -> None:
    """Write a picture into the documentation."""
    PICTURES.mkdir(exist_ok=True)
    path = PICTURES / f"{name}.webp"
    path.write_bytes(picture)
    print(f"{path.relative_to(ROOT)}: {len(picture) / 1e3:.0f} kB")


async def shoot(chromium: Browser, server: Server) -> None:
    """Take all pictures."""
    page = await chromium.page()
    await take_chat(page, server)
    for shot in SHOTS:
        await take(page, server, shot)
    if page.messages:
        raise BrowserError(f"The console of the browser has: {page.messages}")


async def main() -> int:
    """Start, shoot, and return the exit status."""
    weights = prepare(ROOT / ".weights")
    text = CONFIG.format(**weights, template=ROOT / "examples" / "gemma.jinja")
    with TemporaryDirectory() as folder, serving(Path(folder), text) as server:
        await asyncio.to_thread(make_traffic, server)
        async with browser() as chromium:
            await shoot(chromium, server)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except (BrowserError, CheckFailed) as error:
        sys.exit(f"ui_shots: {error}")
