"""A small part of what `make browser` tests, for each change: models, and a chat with a real one."""

from __future__ import annotations

from playwright.async_api import expect

from support.chat_page import ask, ended, open_settings
from support.chromium import IN_BROWSER, Visiting
from support.server import RunningServer

pytestmark = [*IN_BROWSER]


async def test_the_page_shows_the_models_and_finds_them_by_keyboard(visit: Visiting, server: RunningServer) -> None:
    async with visit(server.url) as shown:
        page = shown.page
        await expect(page.locator(".model-row", has_text="smollm2")).to_contain_text("Q4_1")
        await page.keyboard.press("Control+k")
        await page.get_by_role("combobox").fill("chat smollm2")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Models: smollm2")).to_be_visible()


async def test_a_real_model_answers_on_a_phone(visit: Visiting, server: RunningServer) -> None:
    async with visit(server.url, "chat?model=smollm2", is_phone=True) as shown:
        page = shown.page
        settings = await open_settings(page)
        await settings.get_by_label("Most tokens in an answer").fill("4")
        await settings.get_by_label("Alternatives shown for each token").fill("3")
        await settings.get_by_role("button", name="Save").click()
        await ask(page, "What is the capital of France?")
        await ended(page)
        answer = page.locator(".answer")
        await expect(answer).to_contain_text("The answer reached its limit of tokens.")
        await answer.get_by_role("button", name="Token probabilities").click()
        await expect(answer.locator(".token")).to_have_count(4)
        # The token that was taken, and the others.
        await expect(answer.locator(".token-choices dt")).to_have_count(3)
        first = await answer.locator(".token-text").inner_text()
        await answer.get_by_role("button", name="Continue").click()
        await ended(page)
        await answer.get_by_role("button", name="Token probabilities").click()
        assert (await answer.locator(".md").inner_text()).startswith(first.strip())
        await shown.fits()
