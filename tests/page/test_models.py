"""The models: loads, unloads, waits, memory and its history."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from checked_server import Server, asked
from playwright.async_api import expect

from modelyard.protocol.requests import Submit
from support.chat_page import choose
from support.chromium import IN_BROWSER, Visiting
from support.steered import Steered, steered

pytestmark = [pytest.mark.browser, *IN_BROWSER]

# Holds one of the tiny models with its context.
BUDGET = "16MB"
LONG: dict[str, Any] = {"messages": [{"role": "user", "content": "Count."}], "ignore_eos": True, "stream": True}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Steered]:
    with steered(tmp_path, ("one", "two"), loads=False, model={"load": "on-demand"}) as running:
        yield running


async def test_a_load_shows_how_far_it_is(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "models") as shown:
        row = shown.page.locator(".model-row", has_text="one")
        await expect(row).to_contain_text("not loaded")
        await row.get_by_role("button", name="Load", exact=True).click()
        engine = server.engine("one")
        engine.progress(0.5)
        await expect(row.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50")
        engine.load()
        await expect(row.locator(".badge").first).to_have_text("loaded")
        await expect(shown.page.locator(".toast")).to_contain_text("one is loaded.")


async def test_a_load_that_fails_says_why(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "models") as shown:
        shown.may_fail = ("503 (Service Unavailable)",)
        row = shown.page.locator(".model-row", has_text="one")
        await row.get_by_role("button", name="Load", exact=True).click()
        server.engine("one").fail_load("the file ends too early")
        await expect(row.locator(".callout.bad")).to_contain_text("the file ends too early")
        await expect(row.locator(".badge").first).to_have_text("failed")


async def test_a_model_that_waits_for_memory_says_why(visit: Visiting, tmp_path: Path) -> None:
    # Memory for one of the two. The one that answers may stay until it has ended.
    with (
        steered(tmp_path, ("one", "two"), model={"load": "on-demand"}, memory={"budget": BUDGET}) as server,
        ThreadPoolExecutor(2) as others,
    ):
        ask_model = partial(_ask, server.url)
        async with visit(server.url, "models") as shown:
            page = shown.page
            first = others.submit(ask_model, "one")
            engine = await asyncio.to_thread(server.engine, "one")
            await asyncio.to_thread(engine.heard, Submit)
            second = others.submit(ask_model, "two")
            waiting = page.locator(".model-row", has_text="two")
            await expect(waiting).to_contain_text("1 waiting")
            reason = waiting.locator(".callout.busy")
            await expect(reason).to_contain_text("Why it waits: It needs")
            await expect(reason).to_contain_text("one gives back")
            # It is told where it is asked about, too.
            await choose(page, "More actions for two", "What would loading it do?")
            await expect(page.get_by_role("dialog", name="Loading two")).to_contain_text("one gives back")
            await page.keyboard.press("Escape")
            engine.say("Done.")
            engine.finish()
            await asyncio.to_thread(server.answer, "Now me.", model="two")
            await expect(reason).to_have_count(0)
            assert await asyncio.to_thread(first.result) == "Done."
            assert await asyncio.to_thread(second.result) == "Now me."


def _ask(url: str, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "Count."}]}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
    return str(answer.json()["choices"][0]["message"]["content"])


async def test_unloading_at_once_asks_where_answers_would_end(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "models") as shown, httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        request = asyncio.create_task(client.post("/v1/chat/completions", json={**LONG, "model": "one"}))
        engine = await asyncio.to_thread(server.engine, "one")
        engine.load()
        await asyncio.to_thread(engine.heard, Submit)
        row = shown.page.locator(".model-row", has_text="one")
        await expect(row).to_contain_text("1 running")
        await choose(shown.page, "More actions for one", "Unload at once")
        dialog = shown.page.get_by_role("dialog")
        await expect(dialog).to_contain_text("An answer of one will end with an error.")
        await dialog.get_by_role("button", name="Unload at once").click()
        await expect(row.locator(".badge").first).to_have_text("not loaded")
        assert "model_unloaded" in (await request).text


async def test_a_key_sees_no_buttons_that_it_may_not_press(visit: Visiting, tmp_path: Path) -> None:
    keys = [
        {"name": "reader", "key": "sk-reader-0123456789", "scopes": ["read"]},
        {"name": "operator", "key": "sk-operator-0123456789", "scopes": ["read", "admin"]},
    ]
    with steered(tmp_path, server={"keys": keys}) as server:
        async with visit(server.url, "models") as shown:
            shown.may_fail = ("401 (Unauthorized)", "403 (Forbidden)")
            page = shown.page
            await expect(page.get_by_text("The server needs a key.")).to_be_visible()
            await page.get_by_role("link", name="Enter a key").click()
            await page.get_by_label("API key").fill("sk-wrong")
            await page.get_by_role("button", name="Use this key").click()
            await expect(page.get_by_text("The server does not know this key.")).to_be_visible()
            await page.get_by_role("button", name="Remove the key").click()
            await page.get_by_label("API key").fill("sk-reader-0123456789")
            await page.get_by_role("button", name="Use this key").click()
            await expect(page.get_by_text("Key in use: reader")).to_be_visible()
            # The key itself is not shown again.
            assert "sk-reader-0123456789" not in await page.content()
            await page.get_by_role("link", name="Models").click()
            row = page.locator(".model-row")
            await expect(row).to_contain_text("loaded")
            for name in ("Load", "Unload", "Chat"):
                await expect(row.get_by_role("button", name=name, exact=True)).to_have_count(0)
            await expect(page.get_by_role("button", name="Reload configuration")).to_have_count(0)
        async with visit(server.url, "models", key="sk-operator-0123456789") as shown:
            await expect(shown.page.get_by_role("button", name="Unload", exact=True)).to_be_visible()
            await expect(shown.page.get_by_role("button", name="Chat", exact=True)).to_have_count(0)


async def test_models_take_turns_in_memory_and_the_page_says_why(visit: Visiting, demo: Server) -> None:
    await asyncio.to_thread(asked, demo, "/v1/models/reload", {"model_id": "smollm2"})
    async with visit(demo.url, "models") as shown:
        page = shown.page
        smollm2, gemma3 = (page.locator(".model-row", has_text=name) for name in ("smollm2", "gemma3"))
        memory = page.get_by_role("region", name="Memory", exact=True)
        await expect(smollm2.locator(".badge").first).to_have_text("loaded")
        await expect(memory.locator(".legend")).to_contain_text("smollm2")
        await gemma3.get_by_role("button", name="Load", exact=True).click()
        dialog = page.get_by_role("dialog", name="Loading gemma3")
        await expect(dialog).to_contain_text("so others make room")
        await expect(dialog).to_contain_text("smollm2 gives back")
        await dialog.get_by_role("button", name="Load it").click()
        await expect(gemma3.locator(".badge").first).to_have_text("loaded")
        await expect(smollm2.locator(".badge").first).not_to_have_text("loaded")
        timeline = page.get_by_role("region", name="What was in memory")
        await expect(timeline.locator(".changes")).to_contain_text("gemma3")
        # The time before that is shown with the memory as it was.
        await timeline.get_by_role("button", name="5 min", exact=True).click()
        slider = timeline.get_by_role("slider", name="Time")
        await slider.focus()
        await page.keyboard.press("ArrowLeft")
        await expect(page.get_by_role("region", name="Memory at")).to_be_visible()
        await timeline.get_by_role("button", name="Back to now").click()
        await expect(memory).to_be_visible()


async def test_a_model_is_parked_and_comes_back(visit: Visiting, demo: Server) -> None:
    await asyncio.to_thread(asked, demo, "/v1/models/reload", {"model_id": "smollm2"})
    async with visit(demo.url, "models") as shown:
        row = shown.page.locator(".model-row", has_text="smollm2")
        await choose(shown.page, "More actions for smollm2", "Park")
        await expect(row.locator(".badge").first).to_have_text("parked")
        await row.get_by_role("button", name="Load", exact=True).click()
        await expect(row.locator(".badge").first).to_have_text("loaded")
        await row.get_by_title("Details").click()
        await expect(row).to_contain_text("Size of its file")


async def test_a_changed_configuration_is_shown_before_it_is_applied(visit: Visiting, demo: Server) -> None:
    before = demo.file.read_text()
    try:
        async with visit(demo.url, "models") as shown:
            page = shown.page
            button = page.get_by_role("button", name="Reload configuration")
            await button.click()
            dialog = page.get_by_role("dialog", name="Reload the configuration")
            await expect(dialog).to_contain_text("The file has not changed")
            await dialog.get_by_role("button", name="Cancel").click()
            demo.file.write_text(before.replace('alias = "gemma3"', 'alias = "gemma3"\npriority = 7'))
            await button.click()
            await expect(dialog).to_contain_text("Take effect at once")
            await expect(dialog).to_contain_text("gemma3")
            await dialog.get_by_role("button", name="Apply").click()
            await expect(page.locator(".model-row", has_text="gemma3")).to_contain_text("priority 7")
            demo.file.write_text("this is no TOML")
            await button.click()
            shown.may_fail = ("400 (Bad Request)", "422 (Unprocessable")
            await expect(page.locator(".toast.bad")).to_be_visible()
    finally:
        demo.file.write_text(before)
        await asyncio.to_thread(asked, demo, "/v1/config/reload", {})


async def test_a_preview_names_the_keys_of_each_change_and_is_used_by_keyboard(visit: Visiting, demo: Server) -> None:
    before = demo.file.read_text()
    _, _, gemma3 = before.partition("[[models]]\n")[2].rpartition("[[models]]\n")
    changed = before.replace("[server]", "[server]\nmax_connections = 99")
    changed = changed.replace("[models.sampling]", "[models.device]\nmax_seq_len = 512\n[models.sampling]")
    changed += "[[models]]\n" + gemma3.replace('"gemma3"', '"a-second-one"')
    demo.file.write_text(changed)
    try:
        async with visit(demo.url, "models") as shown:
            page = shown.page
            button = page.get_by_role("button", name="Reload configuration")
            await button.focus()
            await page.keyboard.press("Enter")
            dialog = page.get_by_role("dialog", name="Reload the configuration")
            for title, words in (
                ("New models", "a-second-one"),
                ("Models that change", "smollm2: device"),
                ("Only after a restart of the server", "max_connections"),
            ):
                await expect(dialog.locator("dl > div", has_text=title)).to_contain_text(words)
            # Escape changes nothing, and the focus is where it was.
            await page.keyboard.press("Escape")
            await expect(dialog).to_have_count(0)
            await expect(button).to_be_focused()
            await expect(page.locator(".model-row")).to_have_count(2)
            await page.keyboard.press("Enter")
            await expect(dialog).to_be_visible()
            await dialog.get_by_role("button", name="Apply").focus()
            await page.keyboard.press("Enter")
            added = page.locator(".model-row", has_text="a-second-one")
            await expect(added).to_be_visible()
            demo.file.write_text(before)
            await button.click()
            await expect(dialog.locator("dl > div", has_text="Models that go")).to_contain_text("a-second-one")
            await dialog.get_by_role("button", name="Apply").click()
            await expect(added).to_have_count(0)
    finally:
        demo.file.write_text(before)
        await asyncio.to_thread(asked, demo, "/v1/config/reload", {})


async def test_a_model_is_pinned_and_prioritised_until_the_configuration_is_reloaded(
    visit: Visiting, demo: Server
) -> None:
    async with visit(demo.url, "models") as shown:
        page = shown.page
        row = page.locator(".model-row", has_text="gemma3")
        await choose(page, "More actions for gemma3", "Pin")
        await expect(row.get_by_text("pinned", exact=True)).to_be_visible()
        await expect(row.get_by_text("until reload")).to_be_visible()
        await choose(page, "More actions for gemma3", "Priority …")
        dialog = page.get_by_role("dialog", name="Priority of gemma3")
        await dialog.get_by_role("spinbutton").fill("101")
        await expect(dialog.get_by_role("button", name="Save")).to_be_disabled()
        await dialog.get_by_role("spinbutton").fill("7")
        await dialog.get_by_role("button", name="Save").click()
        await expect(row.get_by_text("priority 7")).to_be_visible()
        await page.get_by_role("button", name="Reload configuration").click()
        await expect(page.get_by_role("dialog")).to_contain_text("gemma3")
        await page.get_by_role("dialog").get_by_role("button", name="Apply").click()
        await expect(row.get_by_text("until reload")).to_have_count(0)
        await expect(row.get_by_text("pinned", exact=True)).to_have_count(0)


async def test_the_server_is_examined(visit: Visiting, demo: Server) -> None:
    async with visit(demo.url, "settings") as shown:
        await shown.page.get_by_role("button", name="Examine the server").click()
        findings = shown.page.get_by_role("list", name="Findings").get_by_role("listitem")
        await expect(findings.filter(has_text="llama.cpp").first).to_be_visible()
        await expect(shown.page.get_by_text("Models can be served.")).to_be_visible()
        # It listens at its port itself.
        await expect(findings.filter(has_text="Perhaps Modelyard runs already")).to_have_count(0)
