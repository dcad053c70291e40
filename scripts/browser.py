"""A headless Chromium that a script drives through its DevTools protocol: pages, clicks, screenshots.

Only what the checks of the page need, so that no driver has to be installed beside the system's browser.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_S: Final = 60.0
CALL_S: Final = 60.0
POLL_S: Final = 0.1
_MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024


class BrowserError(Exception):
    """The browser is not installed, did not start, or a page did not do what was asked of it."""


class Page:
    """A tab of the browser.

    Attributes:
        messages: what its console said at the levels warning and error, and its uncaught exceptions.
        requests: the addresses that it asked for.
    """

    def __init__(self, connection: ClientConnection, session: str, reader: _Reader) -> None:
        self._connection, self._session, self._reader = connection, session, reader
        self.messages: list[str] = []
        self.requests: list[str] = []
        reader.pages[session] = self

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol.

        Raises:
            BrowserError: it failed, or did not answer in CALL_S.
        """
        return await self._reader.call(self._connection, method, parameters, self._session)

    async def resize(self, width: int, height: int, *, is_phone: bool = False, scale: float = 1.0) -> None:
        """Set the size of the view, in CSS pixels."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=is_phone
        )
        await self.call("Emulation.setTouchEmulationEnabled", enabled=is_phone)

    async def prefer(self, *, dark: bool) -> None:
        """Set the colour scheme that the system prefers."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def go(self, address: str) -> None:
        """Open an address."""
        await self.call("Page.navigate", url=address)

    async def run(self, script: str) -> Any:
        """Evaluate JavaScript, which may be a promise, and return its value.

        Raises:
            BrowserError: it threw.
        """
        found = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if details := found.get("exceptionDetails"):
            raise BrowserError(f"{script}: {details.get('exception', {}).get('description') or details['text']}")
        return found["result"].get("value")

    async def wait(self, script: str, seconds: float = 30.0) -> None:
        """Wait until a JavaScript expression is true.

        Raises:
            BrowserError: it has none in time.
        """
        try:
            async with asyncio.timeout(seconds):
                # The page has no event for this: what is waited for may be any expression.
                while not await self.run(f"Boolean({script})"):  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            shown = await self.run("document.body.innerText.slice(0, 2000)")
            raise BrowserError(f"not within {seconds:.0f} s: {script}. The page shows:\n{shown}") from None

    async def press(self, key: str, code: str = "", *, ctrl: bool = False, alt: bool = False) -> None:
        """Press a key, such as "Enter", or "k" with ``ctrl``."""
        modifiers = (1 if alt else 0) | (2 if ctrl else 0)
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowDown": 40, "ArrowUp": 38, "ArrowLeft": 37, "ArrowRight": 39}
        facts: dict[str, Any] = {
            "key": key,
            "code": code or key,
            "modifiers": modifiers,
            "windowsVirtualKeyCode": codes.get(key, ord(key.upper()) if len(key) == 1 else 0),
        }
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 and not modifiers else "")
        await self.call("Input.dispatchKeyEvent", type="keyDown", **facts, **({"text": text} if text else {}))
        await self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    async def write(self, text: str) -> None:
        """Write text where the focus is."""
        await self.call("Input.insertText", text=text)

    async def shoot(self) -> bytes:
        """Return what is seen, as a WebP file."""
        picture = await self.call("Page.captureScreenshot", format="webp", quality=90)
        return base64.b64decode(picture["data"])


class _Reader:
    """Passes what the browser sends on to who waits for it."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def call(
        self, connection: ClientConnection, method: str, parameters: dict[str, Any], session: str | None = None
    ) -> dict[str, Any]:
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        await connection.send(json.dumps(message))
        try:
            async with asyncio.timeout(CALL_S):
                return await answer
        except TimeoutError:
            raise BrowserError(f"{method}: no answer in {CALL_S:.0f} s") from None
        finally:
            del self._waiting[number]

    async def read(self, connection: ClientConnection) -> None:
        async for text in connection:
            message = json.loads(text)
            waiting = self._waiting.get(message.get("id", 0))
            if waiting is None:
                self._note(message)
            elif waiting.done():
                continue
            elif "error" in message:
                waiting.set_exception(BrowserError(message["error"]["message"]))
            else:
                waiting.set_result(message["result"])

    def _note(self, message: dict[str, Any]) -> None:
        page = self.pages.get(message.get("sessionId", ""))
        if page is None:
            return
        facts = message["params"]
        match message["method"]:
            case "Runtime.exceptionThrown":
                details = facts["exceptionDetails"]
                page.messages.append(details.get("exception", {}).get("description") or details["text"])
            case "Log.entryAdded" if facts["entry"]["level"] in {"warning", "error"}:
                page.messages.append(f"{facts['entry']['text']} {facts['entry'].get('url', '')}".strip())
            case "Runtime.consoleAPICalled" if facts["type"] in {"warning", "error", "assert"}:
                page.messages.append(" ".join(str(each.get("value")) for each in facts["args"]))
            case "Network.requestWillBeSent":
                page.requests.append(facts["request"]["url"])


class Browser:
    """A running browser; see ``browser``."""

    def __init__(self, connection: ClientConnection, reader: _Reader) -> None:
        self._connection, self._reader = connection, reader

    async def page(self) -> Page:
        """Open a tab whose storage no other tab shares."""
        call, connection = self._reader.call, self._connection
        context = await call(connection, "Target.createBrowserContext", {})
        where = {"url": "about:blank", "browserContextId": context["browserContextId"]}
        target = await call(connection, "Target.createTarget", where)
        attached = await call(connection, "Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
        page = Page(connection, attached["sessionId"], self._reader)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.call(f"{domain}.enable")
        return page


def find_chromium() -> str:
    """Return the path of the system's Chromium.

    Raises:
        BrowserError: there is none.
    """
    for name in NAMES:
        if path := shutil.which(name):
            return path
    raise BrowserError(
        f"Chromium is not installed (looked for {', '.join(NAMES)}). On Debian: apt-get install chromium"
    )


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Start a browser with a profile of its own, and end it afterwards.

    Raises:
        BrowserError: it is not installed, or does not start.
    """
    command = [find_chromium(), "--headless=new", "--remote-debugging-port=0", "--no-first-run", "--hide-scrollbars"]
    # Chromium's sandbox refuses to run as root, which containers and CI do.
    command += ["--no-sandbox"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="modelyard-browser-", ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            *command,
            f"--user-data-dir={folder}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            address = await _address(Path(folder), process)
            async with connect(
                address, max_size=_MAX_MESSAGE_BYTES, open_timeout=START_S, ping_interval=None
            ) as connection:
                reader = _Reader()
                reading = asyncio.create_task(reader.read(connection))
                try:
                    yield Browser(connection, reader)
                finally:
                    reading.cancel()
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _address(folder: Path, process: asyncio.subprocess.Process) -> str:
    """Return the address of the protocol, which the browser writes into its profile once it listens."""
    file = folder / "DevToolsActivePort"
    try:
        async with asyncio.timeout(START_S):
            while True:
                if process.returncode is not None:
                    raise BrowserError(f"Chromium ended with status {process.returncode}")
                lines = file.read_text().split() if file.exists() else []
                if len(lines) == 2:
                    return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise BrowserError(f"Chromium did not listen within {START_S:.0f} s") from None
