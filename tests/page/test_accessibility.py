"""What axe-core finds on every page, in both themes, on a desktop and on a phone: nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from checked_server import ROOT
from playwright.async_api import expect

from modelyard.protocol.requests import Submit
from support.chat_page import ask, choose, ended, open_settings
from support.chromium import IN_BROWSER, Theme, Visiting
from support.scripted_server import call
from support.scripted_tools import ScriptedTools, add, server_tool
from support.steered import Steered, steered

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = [pytest.mark.browser, *IN_BROWSER]

# A development dependency of the page.
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
ANSWER = """<think>The question is easy.</think>
# Why

Light is *scattered*, see [a page](https://example.org/sky) and `code`.

```python
def scatter(wave: float) -> float:
    return 1 / wave**4  # Rayleigh
```

| colour | wave |
| --- | --- |
| blue | 450 |

- one
- two

> Quoted, with $e^{i\\pi} = -1$.
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Steered]:
    tools = [ScriptedTools(server_tool("add", add, needs_approval=True))]
    with steered(
        tmp_path,
        ("m", "n"),
        tools=tools,
        model={"load": "on-demand"},
        server={"record_texts": True},
    ) as running:
        yield running


async def findings(page: Page) -> list[str]:
    """What axe finds in the page as it is, with what it is found at."""
    found: dict[str, Any] = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [f"{each['id']}: {node['html']}" for each in found["violations"] for node in each["nodes"]]


@pytest.mark.parametrize("is_phone", [False, True], ids=["desktop", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing(visit: Visiting, server: Steered, theme: Theme, *, is_phone: bool) -> None:
    async with visit(server.url, "models", is_phone=is_phone, theme=theme) as shown:
        page = shown.page
        await page.evaluate(AXE.read_text())
        found: dict[str, list[str]] = {}

        async def look(where: str) -> None:
            if problems := await findings(page):
                found[where] = problems

        await page.locator(".model-row").first.get_by_title("Details").click()
        await look("models")
        await page.get_by_role("button", name="More actions for n").click()
        await look("a menu")
        await page.keyboard.press("Escape")
        await page.keyboard.press("Control+k")
        await expect(page.get_by_role("combobox")).to_be_visible()
        await look("palette")
        await page.keyboard.press("Escape")

        await shown.go("chat?model=m")
        await expect(page.get_by_role("textbox", name="Ask something")).to_be_visible()
        await look("an empty chat")
        await ask(page, "Why is the sky blue?")
        engine = server.engine()
        engine.heard(Submit)
        engine.say(ANSWER)
        await expect(page.locator(".answer .hljs-keyword").first).to_be_visible()
        await look("an answer that arrives")
        engine.finish()
        await ended(page)
        await page.get_by_text("Thought for").click()
        await look("an answer")
        await ask(page, "Add.")
        await asyncio.to_thread(engine.heard, Submit, 2)
        engine.say(call("calc_add", a=1, b=2))
        engine.finish()
        await expect(page.get_by_role("button", name="Approve", exact=True)).to_be_visible()
        await look("a call that waits")
        await page.get_by_role("button", name="Approve", exact=True).click()
        await asyncio.to_thread(engine.heard, Submit, 3)
        engine.say("Three.")
        engine.finish()
        await ended(page, 2)
        settings = await open_settings(page)
        await look("settings of a chat")
        await page.keyboard.press("Escape")
        await expect(settings).to_have_count(0)
        await shown.go("chat?model=m&model=n")
        await expect(page.get_by_role("button", name="Models: m, n")).to_be_visible()
        await ask(page, "Both")
        for name, number in (("m", 4), ("n", 1)):
            await asyncio.to_thread(server.engine(name).heard, Submit, number)
            server.engine(name).say("Yes.")
            server.engine(name).finish()
        await ended(page, 2)
        await look("side by side")
        await page.get_by_role("button", name="Models: m, n").click()
        await look("the choice of models")
        await page.keyboard.press("Escape")
        if is_phone:
            await page.get_by_role("button", name="Conversations", exact=True).click()
        await choose(page, "Actions: Both", "Delete")
        await look("a question of the page")
        await page.keyboard.press("Escape")

        for place in ("activity", "activity/plots", "activity/log", "settings"):
            await shown.go(place)
            await expect(page.locator("main h1")).to_be_visible()
            await look(place)
        await shown.go("activity")
        await page.locator("tbody tr button").first.click()
        await expect(page.get_by_role("dialog")).to_contain_text("Step by step")
        await look("a request")
        assert found == {}
