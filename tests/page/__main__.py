"""Measure how fast the page is: its first paint, and a conversation of a thousand messages.

    PYTHONPATH=tests:scripts .venv/bin/python -m page

Prints a table in Markdown, for docs/performance.md. Needs what ``make browser`` needs.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from modelyard.protocol.requests import Submit
from support.chat_page import ask, choose, ended
from support.chromium import Visit, chromium_path, started, visiting
from support.steered import Steered, steered

if TYPE_CHECKING:
    from playwright.async_api import CDPSession

MESSAGES: Final = 1_000
PIECES: Final = 300
VISITS: Final = 7
WORDS: Final = "What is the answer? " * 4
ANSWER: Final = """Answer {number} has **words**, `code` and a list:

- the first point, which is a little longer than the others
- the second one

```python
def answer(question: str) -> int:
    return {number}  # the same as ever
```

| value | meaning |
| --- | --- |
| {number} | of this answer |
"""

# Times between frames, while something happens, and how long the longest tasks took.
FRAMES: Final = """async () => {
    const frames = [], tasks = [];
    const observer = new PerformanceObserver((list) => tasks.push(...list.getEntries().map((each) => each.duration)));
    observer.observe({ type: "longtask" });
    let last = performance.now(), isOver = false;
    const frame = (now) => { frames.push(now - last); last = now; if (!isOver) requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
    await WORK;
    isOver = true;
    observer.disconnect();
    return { frames: frames.slice(2), tasks };
}"""

# From end to beginning, a screen each frame.
SCROLL: Final = """(async () => {
    const list = document.querySelector(".messages");
    while (list.scrollTop > 0) {
        list.scrollTop -= list.clientHeight * 0.8;
        await new Promise(requestAnimationFrame);
    }
})()"""


def part(values: list[float], share: float) -> float:
    """Return the value below which a share of the values is."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


async def watch(
    visit: Visit, what: str, each: str, count: int, work: str, beside: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Print a line about the frames of the page, and the time of its thread, while it works.

    Args:
        visit: the page.
        what: names the work.
        each: names a part of it; "frame" for each frame.
        count: how many parts there are.
        work: an expression of a promise; with ``beside``, it waits until ``window.isDone``.
        beside: what is done from outside.
    """
    session = await visit.page.context.new_cdp_session(visit.page)
    await session.send("Performance.enable", {"timeDomain": "threadTicks"})
    before = await busy_s(session)
    watching = asyncio.create_task(visit.page.evaluate(FRAMES.replace("WORK", work)))
    if beside is not None:
        await beside()
        await visit.page.evaluate("window.isDone = true")
    found: dict[str, Any] = await watching
    busy = await busy_s(session) - before
    await session.detach()
    frames: list[float] = found["frames"]
    tasks: list[float] = found["tasks"]
    parts = count or len(frames)
    print(
        f"| {what} | {1e3 * busy / parts:.1f} ms each {each} | {median(frames):.0f} ms | {part(frames, 0.95):.0f} ms "
        f"| {max(frames):.0f} ms | {len(tasks)}, {max(tasks, default=0):.0f} ms |"
    )


async def busy_s(session: CDPSession) -> float:
    """Return how long the main thread of the page has computed, in seconds of the processor."""
    found = await session.send("Performance.getMetrics")
    return float(next(each["value"] for each in found["metrics"] if each["name"] == "TaskDuration"))


UNTIL_DONE: Final = """(async () => {
    window.isDone = false;
    while (!window.isDone) await new Promise(requestAnimationFrame);
})()"""


def conversation() -> str:
    """Return a conversation as an export has it."""
    messages: list[dict[str, Any]] = []
    parent = None
    for number in range(MESSAGES // 2):
        common = {"state": "complete", "createdAt": number}
        question = {"id": f"q{number}", "parent": parent, "role": "user", "text": f"Question {number}?", **common}
        parent = f"a{number}"
        answer = {"id": parent, "parent": f"q{number}", "role": "assistant", "model": "m", **common}
        messages += [question, {**answer, "text": ANSWER.format(number=number)}]
    head = {"id": "long", "title": "Long", "isNamed": True, "createdAt": 1, "updatedAt": 1, "models": ["m"]}
    conversations = [{**head, "selected": {}, "settings": {}, "messages": messages}]
    return json.dumps({"format": "modelyard-conversations", "version": 1, "conversations": conversations})


async def paints(visit: Visit) -> tuple[float, float]:
    """Return when the page was painted first, and with contents, in milliseconds of its visit."""
    found = await visit.page.evaluate(
        """() => new Promise((resolve) => new PerformanceObserver((list, observer) => {
            const found = performance.getEntriesByType("paint");
            if (found.length === 2) { observer.disconnect(); resolve(found.map((each) => each.startTime)); }
        }).observe({ type: "paint", buffered: true }))"""
    )
    return found[0], found[1]


async def stream(server: Steered, visit: Visit) -> None:
    """Have a long answer arrive, a piece every ten milliseconds."""
    await ask(visit.page, "One more?")
    engine = server.engine()
    await asyncio.to_thread(engine.heard, Submit)
    text = ANSWER.format(number=0)
    for at in range(PIECES):
        engine.say(text[at % len(text)])
        await asyncio.sleep(0.01)
    engine.finish()


async def type_words(visit: Visit) -> None:
    """Type a question."""
    await visit.page.get_by_role("textbox", name="Ask something").press_sequentially(WORDS)


async def main() -> None:
    """Measure everything, and print it."""
    with TemporaryDirectory() as folder, steered(Path(folder)) as server:
        file = Path(folder) / "long.json"
        file.write_text(conversation())
        async with started(chromium_path()) as browser:
            firsts, contents, again = [], [], []
            for _ in range(VISITS):
                async with visiting(browser, server.url, "models") as visit:
                    first, with_contents = await paints(visit)
                    firsts.append(first)
                    contents.append(with_contents)
                    await visit.page.evaluate("navigator.serviceWorker.ready.then(() => null)")
                    await visit.page.reload()
                    again.append((await paints(visit))[1])
            print("| | median | most |\n| --- | --- | --- |")
            for what, times in (
                ("first paint", firsts),
                ("first paint with contents", contents),
                ("the same, when the page is visited again", again),
            ):
                print(f"| {what} | {median(times):.0f} ms | {max(times):.0f} ms |")
            async with visiting(browser, server.url, "chat") as visit:
                await measure_chat(server, visit, file)


async def measure_chat(server: Steered, visit: Visit, file: Path) -> None:
    """Measure a long conversation."""
    page = visit.page
    async with page.expect_file_chooser() as chooser:
        await choose(page, "All conversations", "Import")
    began = time.perf_counter()
    await (await chooser.value).set_files(file)
    await page.get_by_role("link", name="Long").wait_for()
    imported = time.perf_counter()
    await page.get_by_role("link", name="Long").click()
    await page.locator(".answer").last.wait_for()
    opened = time.perf_counter()
    print(f"\n{MESSAGES:,} messages: imported in {imported - began:.1f} s, opened in {opened - imported:.2f} s\n")
    titles = ("", "processor", "frames, median", "95 %", "longest", "tasks above 50 ms, the longest")
    print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}")
    await watch(visit, "typing", "key", len(WORDS), UNTIL_DONE, lambda: type_words(visit))
    await page.get_by_role("textbox", name="Ask something").fill("")
    await watch(visit, "an answer arrives", "token", PIECES, UNTIL_DONE, lambda: stream(server, visit))
    await ended(page, await page.locator(".answer").count())
    await watch(visit, "scrolling, first time", "frame", 0, SCROLL)
    await page.get_by_role("button", name="To the end").click()
    await watch(visit, "scrolling again", "frame", 0, SCROLL)


if __name__ == "__main__":
    asyncio.run(main())
