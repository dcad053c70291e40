"""What a stop says that it waits for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from modelyard.cli import server
from modelyard.cli.stopping import Stop, forced_line, stop_line
from modelyard.config import missing_ids, validate_config
from modelyard.yard.runtime.inflight import RunningAnswer

ONE = RunningAnswer("smol", 320, is_waiting=False)
WAITING = RunningAnswer("gemma", 0, is_waiting=True)


@pytest.mark.parametrize(
    ("answers", "requests", "line"),
    [
        ([], 0, "Stopping"),
        (
            [ONE],
            1,
            "Stopping, new connections are refused. 1 answer is running (model smol, 320 tokens so far): waiting up to "
            "30 s; Ctrl-C again ends it",
        ),
        (
            [ONE, WAITING, ONE, ONE, ONE],
            5,
            "Stopping, new connections are refused. 5 answers are running (model smol, 320 tokens so far; model gemma, "
            "waiting; model smol, 320 tokens so far and 2 more): waiting up to 30 s; Ctrl-C again ends them",
        ),
        (
            [],
            2,
            "Stopping, new connections are refused. 2 requests are being answered: waiting up to 30 s; Ctrl-C again "
            "ends them",
        ),
    ],
)
def test_a_stop_says_what_it_waits_for_and_how_to_end_it(
    answers: list[RunningAnswer], requests: int, line: str
) -> None:
    assert stop_line(answers, requests, 30.0, is_terminal=True) == line


def test_without_a_terminal_the_signals_are_named() -> None:
    assert "a second SIGINT or SIGTERM ends it" in stop_line([ONE], 1, 30.0, is_terminal=False)


def test_what_is_ended_is_counted() -> None:
    assert forced_line([ONE, WAITING], 3) == "Ending 2 answers"
    assert forced_line([], 1) == "Ending 1 request"
    assert forced_line([], 0) == ""


async def test_the_first_signal_asks_and_the_second_forces() -> None:
    stop = Stop(None)
    stop.on_signal()
    assert (stop.requested.is_set(), stop.forced.is_set()) == (True, False)
    stop.on_signal()
    assert stop.forced.is_set()


async def test_a_stop_does_not_wait_for_the_headers_of_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_SURVEY_S", 3600.0)
    stop = Stop(None)
    stop.request()
    survey = asyncio.create_task(asyncio.Event().wait())
    searching = SimpleNamespace(until_looked=asyncio.Event().wait)
    async with asyncio.timeout(20):
        await server._await_survey(survey, searching, stop)  # type: ignore[arg-type]
    survey.cancel()


async def test_a_model_whose_missing_path_was_shown_already_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Surveyed:
        async def survey(self) -> dict[str, str]:
            return {"missing": "The path does not exist.", "broken": "It is no GGUF file."}

    models = [{"model_id": "/nowhere/missing.gguf", "load": "on-demand"}, {"model_id": "org/broken"}]
    config = validate_config({"models": models}, source="test")
    await server._survey(Surveyed(), missing_ids(config))  # type: ignore[arg-type]
    assert caplog.messages == ["broken cannot be loaded as it is configured: It is no GGUF file."]
