"""The file of a model changes while a real server serves it: nothing dies, and nobody is answered from a mixture."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from conftest import CONTEXT, validate_config
from modelyard.config import Config
from support.server import RunningServer, serving

LONG = 1500


def config_of(model: Path, isolation: str) -> Config:
    greedy = {"temperature": 0}
    device = {"max_seq_len": CONTEXT}
    entry = {"model_id": str(model), "alias": "m", "sampling": greedy, "device": device, "isolation": isolation}
    memory = {"kv_keep": "disk", "kv_dir": str(model.parent / "kept")}
    return validate_config({"models": [entry], "memory": memory}, source="test", base=model.parent)


@pytest.fixture
def model(drawn_weights: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return shutil.copyfile(drawn_weights["smollm2"], tmp_path / "m.gguf")


@pytest.fixture
def server(model: Path, request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with serving(config_of(model, request.param)) as running:
        yield running


def begun(client: openai.OpenAI) -> openai.Stream[openai.types.Completion]:
    """A stream that goes on for long, after its first text."""
    stream = client.completions.create(
        model="m", prompt="Once upon a time", max_tokens=LONG, stream=True, extra_body={"ignore_eos": True}
    )
    assert next(iter(stream)).choices[0].text
    return stream


def spoil(model: Path) -> None:
    """Other weights in the place of half of them; header and size stay."""
    with model.open("r+b") as file:
        half = model.stat().st_size // 2
        file.seek(half)
        file.write(bytes(half - (2 << 20)))


def answer(client: openai.OpenAI, prompt: str = "1, 2, 3, 4, 5, 6,") -> str:
    return client.completions.create(model="m", prompt=prompt, max_tokens=8).choices[0].text


@pytest.mark.parametrize("server", ["process"], indirect=True)
def test_a_file_that_is_cut_off_ends_its_stream_with_the_reason_and_is_served_again_when_it_is_whole(
    server: RunningServer, model: Path, drawn_weights: dict[str, Path]
) -> None:
    with server.client() as client:
        before = answer(client)
        stream = begun(client)
        os.truncate(model, 1 << 20)
        with pytest.raises(openai.APIError, match=r"The file m\.gguf of the model 'm' changed") as failed:
            list(stream)
        assert failed.value.code == "model_file_changed"
        with pytest.raises(openai.InternalServerError, match=r"m\.gguf") as refused:
            answer(client)
        assert refused.value.code == "model_load_failed"
        shutil.copyfile(drawn_weights["smollm2"], model)
        assert server.post("/v1/models/reload", {"model_id": "m"}).status_code == 200
        assert answer(client) == before
    state = server.read(lambda: server.yard.controller.state.models["m"])
    assert state.deaths_in_row == 0
    assert not server.read(lambda: server.yard.controller.state.poison)


@pytest.mark.parametrize("server", ["thread"], indirect=True)
def test_what_is_written_over_in_its_middle_is_noticed_and_the_next_request_has_the_new_weights(
    server: RunningServer, model: Path
) -> None:
    with server.client() as client:
        before = answer(client)
        stream = begun(client)
        spoil(model)
        with pytest.raises(openai.APIError, match=r"The file m\.gguf of the model 'm' changed"):
            list(stream)
        assert answer(client) != before
    assert not list((model.parent / "kept").glob("*.kv"))


@pytest.mark.parametrize("server", ["thread"], indirect=True)
def test_a_file_that_is_replaced_is_served_on_and_the_next_load_takes_the_new_one(
    server: RunningServer, model: Path, drawn_weights: dict[str, Path], tmp_path: Path
) -> None:
    with server.client() as client:
        before = answer(client)
        shutil.copyfile(drawn_weights["gemma3"], tmp_path / "new.gguf")
        (tmp_path / "new.gguf").replace(model)
        assert answer(client) == before
        assert server.post("/v1/models/unload", {"model_id": "m"}).status_code == 200
        assert answer(client)
    (listed,) = server.get("/v1/models").json()["data"][:1]
    assert server.yard.model("m").architecture == "gemma3", listed


@pytest.mark.parametrize("server", ["thread"], indirect=True)
def test_parked_weights_whose_file_is_written_over_are_given_up(server: RunningServer, model: Path) -> None:
    with server.client() as client:
        before = answer(client)
        assert server.post("/v1/models/unload", {"model_id": "m", "mode": "park"}).status_code == 200
        spoil(model)
        assert answer(client) != before
