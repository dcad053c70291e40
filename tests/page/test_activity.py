"""Requests as they run and as they ended, plots, and the log."""

from __future__ import annotations

import asyncio
import re

import pytest
from checked_server import Server, asked
from playwright.async_api import expect

from support.chromium import IN_BROWSER, Visiting

pytestmark = [pytest.mark.browser, *IN_BROWSER]

WORDS = "Tell me about lighthouses."


@pytest.fixture(scope="module")
def traffic(demo: Server) -> Server:
    """The server, after it has answered over two dialects."""
    messages = [{"role": "user", "content": WORDS}]
    asked(demo, "/v1/chat/completions", {"model": "smollm2", "messages": messages, "max_tokens": 12})
    asked(demo, "/v1/messages", {"model": "smollm2", "messages": messages, "max_tokens": 12})
    return demo


async def test_requests_are_listed_filtered_and_explained(visit: Visiting, traffic: Server) -> None:
    async with visit(traffic.url, "activity") as shown:
        page = shown.page
        rows = page.locator("tbody tr")
        await expect(rows.first).to_contain_text("anthropic")
        await page.get_by_role("searchbox", name="Search").fill("openai")
        await expect(rows.first).to_contain_text("openai")
        await expect(page.locator("tbody", has_text="anthropic")).to_have_count(0)
        await page.get_by_label("State").select_option(label="Failed and cancelled")
        await page.get_by_role("searchbox", name="Search").fill("no such request")
        await expect(page.get_by_text("No request matches the filters.")).to_be_visible()
        await page.get_by_label("State").select_option(label="All")
        await page.get_by_role("searchbox", name="Search").fill("")
        # The keyboard opens a request, too.
        await rows.first.get_by_role("button").focus()
        await page.keyboard.press("Enter")
        detail = page.get_by_role("dialog", name="A request to smollm2")
        await expect(detail).to_contain_text("Reads the prompt")
        await expect(detail).to_contain_text("Writes the answer")
        await expect(detail).to_contain_text(WORDS)
        await page.keyboard.press("Escape")
        await expect(detail).to_have_count(0)


async def test_a_request_appears_while_it_runs(visit: Visiting, demo: Server) -> None:
    async with visit(demo.url, "activity") as shown:
        await expect(shown.page.get_by_role("heading", name="Activity")).to_be_visible()
        body = {"model": "smollm2", "prompt": "One", "max_tokens": 150, "ignore_eos": True}
        running = asyncio.create_task(asyncio.to_thread(asked, demo, "/v1/completions", body))
        row = shown.page.locator("tbody tr").first
        await expect(row.locator(".badge")).to_have_text("writes")
        await running
        await expect(row.locator(".badge")).to_have_text("done")


async def test_plots_are_drawn_and_read_out(visit: Visiting, traffic: Server) -> None:
    async with visit(traffic.url, "activity/plots") as shown:
        plots = shown.page.get_by_role("img")
        await expect(plots).to_have_count(4)
        await expect(shown.page.locator(".uplot canvas")).to_have_count(4)
        spoken = re.compile(r"Memory\. Latest: host [0-9.]+")
        await expect(plots.last).to_have_attribute("aria-label", spoken)


async def test_the_log_is_filtered_and_paused(visit: Visiting, traffic: Server) -> None:
    async with visit(traffic.url, "activity/log") as shown:
        page = shown.page
        lines = page.get_by_role("list", name="Log of the server").get_by_role("listitem")
        await expect(lines.filter(has_text="/v1/chat/completions").first).to_be_visible()
        await page.get_by_role("searchbox", name="Search").fill("/v1/messages")
        await expect(lines.filter(has_text="/v1/chat/completions")).to_have_count(0)
        await page.get_by_role("button", name="Pause").click()
        await expect(page.get_by_role("button", name="Go on")).to_be_visible()
        await page.get_by_label("Level").select_option(label="Errors")
        await expect(page.get_by_text("No line matches.")).to_be_visible()
