"""What holds on every page: keyboard, palette, phones, themes, and a server that goes away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from checked_server import serving
from playwright.async_api import expect

from page.conftest import demo_text
from support.chat_page import ask, ended
from support.chromium import IN_BROWSER, Visiting
from support.steered import Steered, steered

pytestmark = [pytest.mark.browser, *IN_BROWSER]

PLACES = ("models", "chat", "activity", "activity/plots", "activity/log", "settings")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steered]:
    long_name = "an-organisation-with-a-long-name/and-a-model-whose-name-is-longer-than-a-phone-is-wide"
    with steered(tmp_path_factory.mktemp("shell"), ("m", long_name)) as running:
        yield running


async def test_pages_are_reached_by_keyboard(visit: Visiting, server: Steered) -> None:
    async with visit(server.url) as shown:
        page = shown.page
        for key, name in ((2, "Chat"), (3, "Activity"), (4, "Settings"), (1, "Models")):
            await page.keyboard.press(f"Alt+{key}")
            await expect(page.get_by_role("link", name=name)).to_have_attribute("aria-current", "page")
            await expect(page).to_have_title(f"{name} · Modelyard")
        await page.reload()
        await expect(page.get_by_role("link", name="Models")).to_be_visible()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name="Skip to the contents")).to_be_focused()


async def test_the_palette_finds_and_does(visit: Visiting, server: Steered) -> None:
    async with visit(server.url) as shown:
        page = shown.page
        await expect(page.locator(".model-row").first).to_be_visible()
        await page.keyboard.press("Control+k")
        field = page.get_by_role("combobox")
        await expect(field).to_be_focused()
        await field.fill("unload m")
        await page.keyboard.press("Enter")
        await expect(page.locator(".model-row").first.locator(".badge").first).to_have_text("not loaded")
        await page.keyboard.press("Control+k")
        await field.fill("load m")
        await expect(page.get_by_role("option").first).to_have_text("Load mModel")
        await page.keyboard.press("Enter")
        await expect(page.locator(".model-row").first.locator(".badge").first).to_have_text("loaded")
        await page.keyboard.press("Control+k")
        await field.fill("appearance dark")
        await page.keyboard.press("Enter")
        await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        await page.keyboard.press("Control+k")
        await field.fill("chat with m")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Models: m")).to_be_visible()
        await page.keyboard.press("Control+k")
        await field.fill("nothing of the kind")
        await expect(page.get_by_text("Nothing is called that.")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(field).to_have_count(0)


async def test_a_chosen_theme_stays(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "settings") as shown:
        await shown.page.get_by_role("radio", name="Dark").check()
        await shown.page.reload()
        await expect(shown.page.get_by_role("radio", name="Dark")).to_be_checked()
        background = await shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, background[4:-1].split(", "))) < 64


async def test_licences_of_what_is_bundled_are_shown(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "settings") as shown:
        await shown.page.get_by_role("button", name="Show the packages").click()
        await shown.page.locator("summary", has_text="dompurify").click()
        await expect(shown.page.locator("details[open] pre")).to_contain_text("Apache License")


@pytest.mark.parametrize("place", PLACES)
async def test_a_phone_scrolls_nothing_sideways(visit: Visiting, server: Steered, place: str) -> None:
    async with visit(server.url, place, is_phone=True) as shown:
        await expect(shown.page.locator("main h1")).to_be_attached()
        await shown.fits()


async def test_a_chat_fits_a_phone(visit: Visiting, server: Steered) -> None:
    async with visit(server.url, "chat?model=m", is_phone=True) as shown:
        page = shown.page
        await page.get_by_role("button", name="Models: m").click()
        await expect(page.get_by_text("Up to 4 answer side by side.")).to_be_in_viewport(ratio=1)
        await expect(page.get_by_role("button", name="Only this").first).to_be_in_viewport(ratio=1)
        await page.keyboard.press("Escape")
        await ask(page, "x" * 300)
        code = "```python\n" + "value = " + "1 + " * 80 + "1\n```\n"
        table = "| a | b | c | d |\n| - | - | - | - |\n" + "| " + " | ".join(["long words of a cell " * 3] * 4) + " |\n"
        server.answer(code + "\n" + table + "\n$$" + "x + " * 60 + "x$$\n" + "y" * 200)
        await ended(page)
        await expect(page.locator(".md table")).to_be_visible()
        await shown.fits()
        await page.get_by_role("button", name="Conversations", exact=True).click()
        await expect(page.get_by_role("button", name="New chat")).to_be_visible()
        await shown.fits()


async def test_a_server_that_restarts_is_shown_and_found_again(
    visit: Visiting, weights: dict[str, Path], tmp_path: Path
) -> None:
    text = demo_text(weights).replace('alias = "smollm2"', 'alias = "smollm2"\nload = "on-demand"')
    with serving(tmp_path, text) as server:
        port = int(server.url.rpartition(":")[2])
        holding = visit(server.url, "models")
        shown = await holding.__aenter__()
        await expect(shown.page.get_by_text("Connected")).to_be_visible()
        # Once the browser has the whole page, it opens without the server.
        await shown.page.evaluate("navigator.serviceWorker.ready.then(() => null)")
        shown.may_fail = ("net::ERR_",)
    try:
        await expect(shown.page.get_by_role("alert")).to_contain_text("The server does not answer.")
        # What was known last stays, and the page itself opens without its server.
        await expect(shown.page.locator(".model-row")).to_have_count(2)
        await shown.page.reload()
        await expect(shown.page.get_by_text("No connection")).to_be_visible()
        with serving(tmp_path, text, port):
            await expect(shown.page.get_by_text("The server is back.")).to_be_visible()
            await expect(shown.page.locator(".model-row")).to_have_count(2)
            await expect(shown.page.get_by_role("alert")).to_have_count(0)
    finally:
        await holding.__aexit__(None, None, None)
