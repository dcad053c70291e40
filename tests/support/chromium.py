"""Pages in the system's Chromium, which Playwright drives headless, and what is required of each of them.

A page may log no error, may ask nothing of others than its server, and may open no dialog by itself: ``Visit.check``
asserts that at its end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser, Dialog, Page

# Set by `make browser`, which fails where it cannot test.
IS_REQUIRED: Final = os.environ.get("MODELYARD_BROWSER") == "required"
NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_MS: Final = 90_000
# Of each thing that is waited for: machines on which others compute, too, need seconds for what takes milliseconds.
WAIT_MS: Final = 60_000
NOTE_MS: Final = 5_000

IN_BROWSER: Final = (pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300))
"""Marks of all tests in a browser, which share it, and so an event loop."""

MISSING: Final = f"Chromium is not installed (looked for {', '.join(NAMES)}). On Debian: apt-get install chromium"


@dataclass(frozen=True)
class View:
    """What a page is seen on.

    Attributes:
        width, height: in CSS pixels.
        scale: pixels of a CSS pixel.
        is_phone: whether it is touched.
    """

    width: int
    height: int
    scale: float = 1.0
    is_phone: bool = False


DESKTOP: Final = View(1280, 800)
PHONE: Final = View(360, 740, is_phone=True)

Theme = Literal["light", "dark"]
Visiting = Callable[..., AbstractAsyncContextManager["Visit"]]


def find_chromium() -> str | None:
    """Return the path of the system's Chromium; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def chromium_path() -> str:
    """Return the path of Chromium; skip, or fail where it is required, with what to install."""
    path = find_chromium()
    if path is None:
        _cannot(MISSING)
    if find_spec("playwright") is None:
        _cannot("The package playwright is not installed. It is one of those that `make test` installs")
    return str(path)


def _cannot(why: str) -> None:
    if IS_REQUIRED:
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@asynccontextmanager
async def started(path: str) -> AsyncIterator[Browser]:
    """Run the Chromium at ``path`` for the length of the context."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, timeout=START_MS)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Visit:
    """A page of a server in a profile of its own, with what happened in it.

    Attributes:
        server: the address of the server.
        page: Playwright's page.
        errors: what its console has at the level of errors, and what was thrown.
        requests: the addresses that it asked for.
        dialogs: the texts of dialogs of the browser itself, such as those of ``alert``.
        may_fail: words of errors that the test brings about.
    """

    server: str
    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    may_fail: tuple[str, ...] = ()

    async def refuse(self, dialog: Dialog) -> None:
        """Note a dialog of the browser, and close it, because the page stands still meanwhile."""
        self.dialogs.append(dialog.message)
        await dialog.dismiss()

    async def go(self, place: str) -> None:
        """Open a place of the page, such as ``chat``."""
        await self.page.goto(f"{self.server}/ui/#/{place}")

    async def fits(self) -> None:
        """Assert that nothing has to be scrolled sideways to be seen."""
        size: dict[str, Any] = await self.page.evaluate(
            """() => {
                const root = document.documentElement;
                const over = [...document.querySelectorAll("main *, header *")].filter((element) => {
                    const { right, width } = element.getBoundingClientRect();
                    if (width === 0 || right <= root.clientWidth + 1) return false;
                    for (let at = element.parentElement; at; at = at.parentElement) {
                        const isCut = getComputedStyle(at).overflowX !== "visible";
                        if (isCut && at.scrollWidth > at.clientWidth) return false;
                    }
                    return true;
                });
                const names = over.map((each) => `${each.tagName}.${each.className}`).slice(0, 5);
                return { page: root.scrollWidth, view: root.clientWidth, names };
            }"""
        )
        assert size["page"] <= size["view"], size
        assert size["names"] == [], size

    def check(self) -> None:
        """Assert what is required of every page."""
        unexpected = [text for text in self.errors if not any(words in text for words in self.may_fail)]
        assert unexpected == []
        own = urlsplit(self.server).netloc
        # Data and blobs are of the page itself.
        others = [url for url in self.requests if url.startswith(("http", "ws")) and urlsplit(url).netloc != own]
        assert others == [], "the page asked others than its server"
        assert self.dialogs == []


@asynccontextmanager
async def visiting(
    browser: Browser,
    server: str,
    place: str = "",
    *,
    is_phone: bool = False,
    view: View | None = None,
    theme: Theme = "light",
    key: str = "",
) -> AsyncIterator[Visit]:
    """Open the page of a server in a new profile, and check it at the end.

    Args:
        browser: what ``started`` returned.
        server: the address of the server.
        place: of the page, such as ``activity/log``.
        is_phone: whether the view is 360 pixels wide, and touched.
        view: in place of that.
        theme: what the system prefers.
        key: of the server, as if it were entered before.
    """
    from playwright.async_api import Error, expect

    expect.set_options(timeout=WAIT_MS)
    seen = view or (PHONE if is_phone else DESKTOP)
    context = await browser.new_context(
        viewport={"width": seen.width, "height": seen.height},
        device_scale_factor=seen.scale,
        has_touch=seen.is_phone,
        color_scheme=theme,
        reduced_motion="reduce",
    )
    context.set_default_timeout(WAIT_MS)
    if key:
        await context.add_init_script(f"localStorage.setItem('modelyard.key', {key!r})")
    page = await context.new_page()
    visit = Visit(server, page)
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on("console", lambda message: visit.errors.append(message.text) if message.type == "error" else None)
    page.on("dialog", visit.refuse)
    context.on("request", lambda request: visit.requests.append(request.url))
    try:
        await visit.go(place)
        yield visit
        visit.check()
    except Exception as error:
        # A page that hangs, or is closed, shows nothing more.
        with suppress(Error):
            shown = await page.locator("body").inner_text(timeout=NOTE_MS)
            error.add_note(f"The page shows:\n{shown}\nErrors: {visit.errors}")
        raise
    finally:
        await context.close()
