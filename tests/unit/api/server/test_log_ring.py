from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from modelyard.api.app import create_app
from modelyard.api.server.log_ring import (
    MAX_BYTES,
    MAX_LINE_CHARS,
    MAX_LINES,
    LogLine,
    LogRing,
    mentions,
    without_secrets,
)
from modelyard.api.server.logs import LogStream
from modelyard.config import validate_config
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, LogRing]]:
    logger, ring = logging.getLogger("test of the log ring"), LogRing()
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(ring)
    yield logger, ring
    logger.removeHandler(ring)


def texts(ring: LogRing) -> list[str]:
    return [line.message for line in ring.lines()]


def test_the_last_lines_are_kept(log: tuple[logging.Logger, LogRing]) -> None:
    logger, ring = log
    for number in range(MAX_LINES + 3):
        logger.info("line %d", number)
    assert texts(ring)[0] == "line 3"
    assert len(ring.lines()) == MAX_LINES


def test_lines_take_a_bounded_amount_of_memory(log: tuple[logging.Logger, LogRing]) -> None:
    logger, ring = log
    for _ in range(600):
        logger.info("x" * (2 * MAX_LINE_CHARS))
    assert {len(text) for text in texts(ring)} == {MAX_LINE_CHARS}
    assert sum(map(len, texts(ring))) <= MAX_BYTES


def test_a_record_whose_arguments_do_not_suit_it_does_no_harm(log: tuple[logging.Logger, LogRing]) -> None:
    logger, ring = log

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("It has no text.")

    for message, *arguments in (("%d", "no number"), ("%(name)s", {"other": 1}), ("%s", Broken())):
        ring.handle(logging.LogRecord("x", logging.INFO, "x", 1, message, tuple(arguments), None))
    logger.info("next")
    assert texts(ring) == ["next"]


def test_an_exception_is_a_part_of_its_line(log: tuple[logging.Logger, LogRing]) -> None:
    logger, ring = log
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("It failed")
    assert texts(ring)[0].startswith("It failed\nTraceback")
    assert texts(ring)[0].endswith("ValueError: broken")


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer {secret}",
        "GET https://hub/api?token={secret}&x=1",
        "the token hf_{secret} is wrong",
        "key sk-{secret}",
        "https://user:{secret}@hub/x",
        "https://{secret}@hub/x",
        "GET https://cdn/x?Expires=1&X-Amz-Signature={secret}",
    ],
)
def test_what_looks_like_a_secret_is_not_kept(text: str) -> None:
    secret = "0123456789abcdef"
    assert secret not in without_secrets(text.format(secret=secret))


@pytest.mark.parametrize("sign", ["://", "token=", "://:", "Bearer "])
def test_a_long_line_is_searched_in_time_that_grows_with_its_length(sign: str) -> None:
    # In quadratic time this would take hours.
    assert without_secrets(sign + ":" * 500_000)
    assert without_secrets(sign * 100_000)


def test_an_ordinary_line_is_kept_as_it_is() -> None:
    line = "POST /v1/chat/completions 200 model=small key=alice prompt_tokens=12 completion_tokens=34 request_id=0f1c"
    assert without_secrets(line) == line


@pytest.mark.parametrize(
    ("message", "is_about"),
    [
        ("Loaded small in 3.2 s", True),
        ("POST /v1/x 200 model=small ms=1", True),
        ("The engine of small died.", True),
        ("Loaded smaller", False),
        ("Loaded org/small", False),
        ("Loaded small-2", False),
        ("Loaded small.gguf", False),
    ],
)
def test_a_line_is_about_a_model_whose_whole_id_it_holds(message: str, is_about: bool) -> None:
    assert mentions("small")(LogLine("1", 1, 0.0, "INFO", "x", message)) is is_about


def test_the_id_of_a_line_of_an_earlier_run_is_before_all_lines(log: tuple[logging.Logger, LogRing]) -> None:
    logger, ring = log
    logger.info("one")
    assert ring.number_of(ring.lines()[0].id) == 1
    assert [ring.number_of(each) for each in ("abc-7", "", "7", "x-", f"x-{'9' * 5000}")] == [0] * 5


async def test_a_follower_gets_each_line_once_from_any_thread(log: tuple[logging.Logger, LogRing]) -> None:
    logger, ring = log
    logger.info("before")
    sent: list[bytes] = []
    is_there = asyncio.Event()

    async def send(message: dict[str, object]) -> None:
        body = message.get("body", b"")
        assert isinstance(body, bytes)
        sent.append(body)
        is_there.set()

    async def receive() -> dict[str, object]:
        await asyncio.Event().wait()
        return {}

    stream = LogStream(ring, ring.lines(), ring.lines()[-1].number, lambda line: line.message != "unwanted")
    logger.info("before the follower is there")
    running = asyncio.create_task(stream({}, receive, send))  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        await is_there.wait()
        assert b"before the follower is there" in b"".join(sent)
        await asyncio.to_thread(logger.info, "unwanted")
        await asyncio.to_thread(logger.info, "after")
        ring.dismiss()
        await running
    data = [json.loads(line[6:]) for line in b"".join(sent).decode().splitlines() if line.startswith("data: ")]
    assert [each["message"] for each in data] == ["before", "before the follower is there", "after"]


async def test_the_log_is_read_over_http(log: tuple[logging.Logger, LogRing], tmp_path: Path) -> None:
    logger, ring = log
    write(tmp_path / "m.gguf", tiny_model())
    config = validate_config({"models": [{"model_id": "m.gguf", "alias": "m"}]}, source="test", base=tmp_path)
    engines = ScriptedEngines(answer=lambda _: ["Hello"])
    yard = Yard(config, make_engine=engines.make_handle)
    await yard.start()
    try:
        for text in ("one", "model=m two", "three"):
            logger.info(text)
        transport = httpx.ASGITransport(create_app(yard, log_ring=ring))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

            async def read(**query: object) -> list[str]:
                answer = await client.get("/v1/logs", params=query)  # type: ignore[arg-type]
                return [each["message"] for each in answer.json()["data"]]

            assert await read() == ["one", "model=m two", "three"]
            assert await read(lines=1) == ["three"]
            assert await read(lines=0) == []
            assert await read(model="m") == ["model=m two"]
            assert await read(since=ring.lines()[0].time + 3600) == []
            assert (await client.get("/v1/logs?model=x")).status_code == 404
            assert (await client.get("/v1/logs?lines=-1")).status_code == 400
            later = await client.get("/v1/logs", headers={"last-event-id": ring.lines()[1].id})
            assert [each["message"] for each in later.json()["data"]] == ["three"]
        transport = httpx.ASGITransport(create_app(yard))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/v1/logs")).json()["error"]["code"] == "unsupported_operation"
    finally:
        await yard.close()
        assert await asyncio.to_thread(engines.end)
