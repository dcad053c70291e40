"""Calls of the server's tools: approved or denied where they are made, and what the model reads of that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from modelyard.protocol.requests import Submit
from support.chat_page import ask, ended
from support.chromium import IN_BROWSER, Visiting
from support.scripted_server import call
from support.scripted_tools import ScriptedTools, add, fail, server_tool
from support.steered import Steered, steered

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

pytestmark = [pytest.mark.browser, *IN_BROWSER]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Steered]:
    tools = [
        ScriptedTools(
            server_tool("add", add, needs_approval=True),
            server_tool("save", fail, needs_approval=True),
        )
    ]
    with steered(tmp_path, tools=tools) as running:
        yield running


async def calls(server: Steered, *texts: str, number: int = 1) -> None:
    """Have the model make calls in its ``number``-th turn."""
    await asyncio.to_thread(server.engine().heard, Submit, number)
    server.engine().say("".join(texts))
    server.engine().finish()


async def results(server: Steered, number: int) -> list[str]:
    """What the model reads of its calls in its ``number``-th turn."""
    turns = await asyncio.to_thread(server.turns, number=number)
    return [str(content) for role, content in turns if role == "tool"]


def card(page: Page, name: str) -> Locator:
    """The call of a tool in an answer."""
    return page.get_by_role("region", name=f"Call: {name}")


async def test_a_denied_call_does_not_run_and_the_model_reads_that(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        page = shown.page
        await ask(page, "Add.")
        await calls(server, call("calc_add", a=1, b=2))
        waiting = card(page, "calc_add")
        await expect(waiting).to_contain_text("waits for approval")
        # What would run is read before it is decided.
        await expect(waiting.locator("pre")).to_contain_text('"a": 1')
        await waiting.get_by_role("button", name="Deny").click()
        (result,) = await results(server, 2)
        assert "3" not in result
        assert "denied" in result
        server.answer("Then not.", number=2)
        await ended(page)
        await expect(waiting.locator(".badge")).to_contain_text("denied")
        await expect(waiting.get_by_role("button", name="Approve", exact=True)).to_have_count(0)
        await expect(page.locator(".answer .md")).to_have_text("Then not.")
        # The decision is kept with the conversation.
        await page.reload()
        await expect(waiting.locator(".badge")).to_contain_text("denied")


async def test_calls_of_one_turn_are_decided_one_by_one(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        page = shown.page
        await ask(page, "Add, and save.")
        await calls(server, call("calc_add", a=1, b=2), call("calc_save", a=3, b=4))
        await expect(page.get_by_role("button", name="Deny")).to_have_count(2)
        await card(page, "calc_save").get_by_role("button", name="Approve", exact=True).click()
        await expect(card(page, "calc_save").locator(".badge")).to_contain_text("failed")
        await expect(card(page, "calc_save")).to_contain_text("The disk is full.")
        await card(page, "calc_add").get_by_role("button", name="Deny").click()
        added, saved = await results(server, 2)
        assert "denied" in added
        assert "The disk is full." in saved
        server.answer("Neither.", number=2)
        await ended(page)


async def test_a_tool_is_approved_for_the_rest_of_an_answer(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        page = shown.page
        await ask(page, "Add twice.")
        await calls(server, call("calc_add", a=1, b=2))
        await page.get_by_role("button", name="Approve all of this tool").click()
        await calls(server, call("calc_add", a=3, b=4), number=2)
        assert await results(server, 3) == ["3", "7"]
        server.answer("Three, and seven.", number=3)
        await ended(page)
        await expect(page.get_by_role("button", name="Approve", exact=True)).to_have_count(0)


async def test_an_answer_that_is_stopped_asks_for_nothing_more(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat") as shown:
        page = shown.page
        await ask(page, "Add.")
        await calls(server, call("calc_add", a=1, b=2))
        await expect(page.get_by_role("button", name="Deny")).to_be_visible()
        await page.get_by_role("button", name="Stop").click()
        await ended(page)
        await expect(page.get_by_role("button", name="Deny")).to_have_count(0)
        await expect(page.locator(".answer")).to_contain_text("Stopped.")
        # The badge does not say that the call still waits.
        await expect(card(page, "calc_add").locator(".badge")).not_to_contain_text("waits")
