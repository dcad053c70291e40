"""What Ollama's dialect says of models, and of how long an answer took."""

from __future__ import annotations

import pytest

from modelyard.api.ollama.encoder import durations
from modelyard.yard.requests.timings import RequestTimings

S = 10**9


def answer(**changes: float) -> RequestTimings:
    times = RequestTimings(arrived=100.0, granted=103.0, started=104.0, first=105.5, last=107.0, ended=107.5)
    for name, value in changes.items():
        setattr(times, name, value)
    return times


@pytest.mark.parametrize(
    ("times", "load", "prompt", "answered"),
    [
        pytest.param(answer(), 4.0, 1.5, 2.0, id="whole"),
        pytest.param(answer(paused_s=1.25), 5.25, 1.5, 0.75, id="suspended in the middle"),
        pytest.param(answer(first=0.0, last=0.0), 4.0, 3.5, 0.0, id="empty answer"),
        pytest.param(answer(started=0.0), 3.0, 2.5, 2.0, id="engine that reports no start"),
        pytest.param(answer(first=107.5, last=107.5), 4.0, 3.5, 0.0, id="one token"),
    ],
)
def test_the_prompt_takes_until_the_first_token_and_the_answer_from_there(
    times: RequestTimings, load: float, prompt: float, answered: float
) -> None:
    spent = durations(times)
    assert spent["load_duration"] == load * S
    assert spent["prompt_eval_duration"] == prompt * S
    assert spent["eval_duration"] == max(1, answered * S), "clients divide by it"
    parts = ("load_duration", "prompt_eval_duration", "eval_duration")
    assert spent["total_duration"] == sum(spent[part] for part in parts)
