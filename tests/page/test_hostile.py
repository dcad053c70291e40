"""Texts of strangers: answers, names, results of tools and files that would run code, or tell others what is read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.async_api import expect

from modelyard.agent.tools import ReportProgress, ToolResult
from modelyard.protocol.requests import Submit
from support.chat_page import ask, choose, ended
from support.chromium import IN_BROWSER, Visiting
from support.scripted_server import call
from support.scripted_tools import ScriptedTools, server_tool
from support.steered import steered

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = [pytest.mark.browser, *IN_BROWSER]

RUN = "window.wasRun=1;alert(1)"
ELEMENTS = (
    f"<script>{RUN}</script><img src=x onerror='{RUN}'><svg onload='{RUN}'/><iframe src='javascript:{RUN}'></iframe>"
    f"<body onload='{RUN}'><a href='javascript:{RUN}'>press</a><style>body{{display:none}}</style>"
    "<link rel=stylesheet href=//evil.example/x.css><base href=//evil.example/>"
    "<form action=//evil.example><input></form>"
)
MARKDOWN = f"""{ELEMENTS}

[script](javascript:{RUN}) [data](data:text/html,<script>{RUN}</script>) [vb](vbscript:x) <javascript:{RUN}>

![picture](https://evil.example/pixel.png) ![data](data:image/svg+xml,<svg/onload={RUN}>) ![](//evil.example/p)

[reference][r] ![reference][r]

[r]: https://evil.example/r.png "</a><script>{RUN}</script>"

```html"><script>{RUN}</script>
{ELEMENTS}
```

```js
{ELEMENTS}
```

$\\href{{javascript:{RUN}}}{{x}}$ $\\includegraphics{{https://evil.example/x.png}}$ $\\htmlData{{x=1}}{{y}}$
$\\def\\a{{\\a\\a}}\\a$

| {ELEMENTS} | b |
| --- | --- |
| `{ELEMENTS}` | [x](java&#115;cript:{RUN}) |

&lt;script&gt;{RUN}&lt;/script&gt; <math><mtext><script>{RUN}</script></mtext></math>
"""


async def nothing_ran(page: Page) -> None:
    """Assert that no code of a text was run, and that no text became an element that can act."""
    assert await page.evaluate("window.wasRun") is None
    acting = "main :is(script, iframe, style, link, base, object, embed, img[src^='http'], [onerror], [onload])"
    assert await page.locator(acting).count() == 0
    addresses = await page.evaluate("[...document.querySelectorAll('main a[href]')].map((each) => each.protocol)")
    assert set(addresses) <= {"http:", "https:", "mailto:"}
    assert await page.evaluate("document.baseURI.startsWith(location.origin)")


async def test_an_answer_is_text_whatever_it_reads_like(visit: Visiting, tmp_path: Path) -> None:
    with steered(tmp_path) as server:
        async with visit(server.url, "chat") as shown:
            page = shown.page
            await ask(page, ELEMENTS)
            engine = server.engine()
            engine.heard(Submit)
            # In pieces, as markup that is not complete yet is another.
            for at in range(0, len(MARKDOWN), 97):
                engine.say(MARKDOWN[at : at + 97])
            engine.finish()
            await ended(page)
            await expect(page.locator(".md table")).to_be_visible()
            await nothing_ran(page)
            # Links of answers open elsewhere, and tell nobody where they stood.
            links = page.locator(".md a[href^='https://evil.example']")
            for at in range(await links.count()):
                assert {"noopener", "noreferrer"} & set((await links.nth(at).get_attribute("rel") or "").split())
            await page.reload()
            await expect(page.locator(".md table")).to_be_visible()
            await nothing_ran(page)


async def test_a_result_of_a_tool_is_text(visit: Visiting, tmp_path: Path) -> None:
    async def hostile(_arguments: Mapping[str, Any], _report: ReportProgress) -> ToolResult:
        return ToolResult(ELEMENTS)

    tool = server_tool("look", hostile, server="<b>calc</b>")
    with steered(tmp_path, tools=[ScriptedTools(tool)]) as server:
        async with visit(server.url, "chat") as shown:
            page = shown.page
            await ask(page, "Look.")
            engine = server.engine()
            engine.heard(Submit)
            engine.say(call(tool.name, a=ELEMENTS))
            engine.finish()
            await asyncio.to_thread(engine.heard, Submit, 2)
            engine.say("Seen.")
            engine.finish()
            await ended(page)
            await page.locator(".call summary").click()
            await expect(page.locator(".call pre").last).to_contain_text("<script>")
            await nothing_ran(page)


async def test_a_name_of_a_model_and_an_error_are_text(visit: Visiting, tmp_path: Path) -> None:
    name = f"<img src=x onerror='{RUN}'>"
    with steered(tmp_path, (name,)) as server:
        async with visit(server.url, "models") as shown, httpx.AsyncClient(base_url=server.url) as client:
            page = shown.page
            await expect(page.locator(".model-row")).to_contain_text(name)
            await nothing_ran(page)
            shown.may_fail = ("404 (Not Found)",)
            await client.post("/v1/chat/completions", json={"model": ELEMENTS, "messages": []})
            await page.get_by_role("button", name="More actions").click()
            await page.keyboard.press("Control+k")
            await expect(page.get_by_role("option").filter(has_text="<img").first).to_be_visible()
            await page.keyboard.press("Escape")
            await page.get_by_role("button", name="Chat", exact=True).click()
            await ask(page, "Hello")
            server.answer("Hi.", model=name)
            await ended(page)
            await shown.go("activity")
            await expect(page.locator("tbody tr").first).to_contain_text(name)
            await nothing_ran(page)
            await shown.go("activity/plots")
            await expect(page.locator(".uplot canvas").first).to_be_visible()
            await nothing_ran(page)


# Keys of objects in JavaScript, paths, an address, characters that turn the direction of what follows, and 200 of one.
NAMES = ("__proto__", "constructor", "../../v1/config/reload?x=#y", f"javascript:{RUN}", "\u202egpj.x", "w" * 200)


@pytest.mark.parametrize("is_phone", [False, True], ids=["desktop", "phone"])
async def test_odd_names_of_models_work_like_others(visit: Visiting, tmp_path: Path, *, is_phone: bool) -> None:
    with steered(tmp_path, NAMES, model={"load": "on-demand"}) as server:
        async with visit(server.url, "models", is_phone=is_phone) as shown:
            page = shown.page
            rows = page.locator(".model-row")
            await expect(rows).to_have_count(len(NAMES))
            for at in range(len(NAMES)):
                await rows.nth(at).get_by_role("button", name="Load", exact=True).click()
                await expect(rows.nth(at).locator(".badge").first).to_have_text("loaded")
                await rows.nth(at).get_by_title("Details").click()
            await expect(page.get_by_role("region", name="What was in memory")).to_contain_text("__proto__")
            await nothing_ran(page)
            await shown.fits()
            for at, name in enumerate(NAMES):
                await shown.go("models")
                await rows.nth(at).get_by_role("button", name="Chat", exact=True).click()
                await expect(page.get_by_role("button", name=f"Models: {name}", exact=True)).to_be_visible()
                await ask(page, f"Who is number {at}?")
                server.answer("Me.", model=name)
                await ended(page)
            await shown.fits()
            await shown.go("activity")
            await expect(page.locator("tbody tr")).to_have_count(len(NAMES))
            await page.get_by_label("Model").select_option(label="constructor")
            await expect(page.locator("tbody tr")).to_have_count(1)
            await shown.fits()
            await shown.go("activity/plots")
            await expect(page.locator(".uplot canvas").first).to_be_visible()
            await nothing_ran(page)


async def test_an_imported_conversation_is_text(visit: Visiting, tmp_path: Path) -> None:
    file = tmp_path / "hostile.json"
    file.write_text(_hostile_conversation())
    with steered(tmp_path) as server:
        async with visit(server.url, "chat") as shown:
            page = shown.page
            async with page.expect_file_chooser() as chooser:
                await choose(page, "All conversations", "Import")
            await (await chooser.value).set_files(file)
            await page.get_by_role("navigation", name="Conversations").get_by_role("link").first.click()
            await expect(page.locator(".answer").first).to_be_visible()
            await nothing_ran(page)


def _hostile_conversation() -> str:
    question = {
        "id": "q",
        "parent": None,
        "role": "user",
        "text": ELEMENTS,
        "state": "complete",
        "createdAt": 1,
        "attachments": [
            {"kind": "image", "name": ELEMENTS, "data": "https://evil.example/pixel.png"},
            {"kind": "audio", "name": "x", "data": "https://evil.example/sound.wav"},
            {"kind": "image", "name": "x", "data": f"javascript:{RUN}"},
            {"kind": "text", "name": ELEMENTS, "data": ELEMENTS},
        ],
    }
    made = {"id": "c", "name": ELEMENTS, "server": ELEMENTS, "arguments": ELEMENTS, "phase": "complete", "round": 0}
    answer = {
        "id": "a",
        "parent": "q",
        "role": "assistant",
        "model": ELEMENTS,
        "text": MARKDOWN,
        "reasoning": ELEMENTS,
        "state": "complete",
        "createdAt": 2,
        "calls": [{**made, "at": 0, "result": ELEMENTS}],
    }
    head = {"id": "x", "title": ELEMENTS, "isNamed": True, "createdAt": 1, "updatedAt": 1, "models": [ELEMENTS]}
    conversation = {**head, "selected": {}, "settings": {}, "messages": [question, answer]}
    return json.dumps({"format": "modelyard-conversations", "version": 1, "conversations": [conversation]})
