"""What a person does in the chat of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page


async def ask(page: Page, text: str) -> None:
    """Write a question, and send it with Enter."""
    await page.get_by_role("textbox", name="Ask something").fill(text)
    await page.keyboard.press("Enter")


async def ended(page: Page, answers: int = 1) -> None:
    """Wait until so many answers are shown, none of which streams."""
    from playwright.async_api import expect

    await expect(page.locator(".answer[aria-busy=false]")).to_have_count(answers)
    await expect(page.locator(".answer[aria-busy=true]")).to_have_count(0)


def text_of(answer: Locator) -> Locator:
    """The rendered text of an answer."""
    return answer.locator(".markdown")


async def choose(page: Page, menu: str, item: str) -> None:
    """Open a menu by the name of its button, and choose an item of it."""
    await page.get_by_role("button", name=menu).click()
    await page.get_by_role("menuitem", name=item).click()


async def open_settings(page: Page) -> Locator:
    """Open the settings of the conversation, and return their dialog."""
    await page.get_by_role("button", name="Settings of this chat").click()
    return page.get_by_role("dialog", name="Settings of this chat")
