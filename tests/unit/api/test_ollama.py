"""What Ollama's dialect says of models, and of how long an answer took."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.api.ollama.encoder import durations
from modelyard.api.ollama.model_text import parameter_size, parameters_text
from modelyard.formats.gguf.read import read_header
from modelyard.protocol.prompts import Sampling
from modelyard.yard.requests.timings import RequestTimings
from support.scripted_server import scripted_server

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


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (134_515_008, "134.52M"),
        (1_000_000, "1M"),
        (3_212_749_888, "3.2B"),
        (7_000_000_000, "7B"),
        (24_576, "25K"),
        (12, "12"),
        (None, ""),
    ],
)
def test_a_number_of_weights_is_written_as_ollama_writes_it(count: int | None, text: str) -> None:
    assert parameter_size(count) == text


def test_sampling_defaults_are_written_as_a_modelfile_shows_them() -> None:
    # A header has 32-bit floats.
    sampling = Sampling(temperature=0.699999988079071, top_k=40, repetition_penalty=1.0)
    assert parameters_text(sampling).splitlines() == [
        "repeat_penalty                 1",
        "temperature                    0.7",
        "top_k                          40",
    ]
    assert parameters_text(Sampling()) == parameters_text(None) == ""


async def test_a_model_shows_what_its_header_and_its_configuration_say(tmp_path: Path) -> None:
    own = {"sampling": {"temperature": 0.2}}
    async with scripted_server(tmp_path, model=own) as server:
        shown = (await server.post("/api/show", model="m")).json()
        (listed,) = (await server.client.get("/api/tags")).json()["models"]
    header = read_header(tmp_path / "tiny.gguf")
    assert shown["model_info"]["general.parameter_count"] == header.parameter_count > 0
    assert listed["details"] == shown["details"]
    assert shown["details"]["parameter_size"] == parameter_size(header.parameter_count)
    assert shown["parameters"].split() == ["temperature", "0.2"]
    assert "license" not in shown
