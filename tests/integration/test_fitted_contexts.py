"""Contexts that fit themselves, with real weights: what a small budget does to them, and what clients see of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modelyard.cli import app
from modelyard.config import Config, validate_config
from support.server import RunningServer, serving

# Both models with a part of their contexts, but not with all of the 8,192 tokens that each would have.
BUDGET = "850MB"


def tables(weights: dict[str, Path]) -> list[dict[str, Any]]:
    return [
        {"model_id": str(weights["smollm2"]), "alias": "smol", "device": {"max_seq_len": "auto"}},
        {"model_id": str(weights["gemma3"]), "alias": "gemma"},
    ]


def configured(weights: dict[str, Path], budget: str = BUDGET) -> Config:
    runtime = {"max_seqs": 4, "prefix_cache_n": 4, "trial": False}
    given = {"models": tables(weights), "memory": {"budget": budget}, "runtime": runtime}
    return validate_config(given, source="test")


@pytest.fixture(scope="module")
def server(weights: dict[str, Path]) -> Iterator[RunningServer]:
    with serving(configured(weights)) as running:
        yield running


def listed(server: RunningServer) -> dict[str, dict[str, Any]]:
    return {model["id"]: model for model in server.get("/v1/models").json()["data"]}


def test_both_models_are_loaded_with_shorter_contexts_and_the_list_says_why(server: RunningServer) -> None:
    models = listed(server)
    assert [model["status"] for model in models.values()] == ["loaded", "loaded"]
    lengths = {model["context_length"] for model in models.values()}
    assert len(lengths) == 1
    assert 4096 <= lengths.pop() < 8192
    why = "shortened from 8,192, so that the models that are loaded at the start fit the memory"
    assert {model["context_reason"] for model in models.values()} == {why}
    assert sum(model["resident_bytes"] for model in models.values()) <= 850_000_000


def test_memory_is_taken_for_a_context_as_it_is_needed(server: RunningServer) -> None:
    before = listed(server)["smol"]
    assert before["context_allocated"] == 512
    answer = server.post("/v1/completions", {"model": "smol", "prompt": " sea" * 1100, "max_tokens": 4})
    assert answer.status_code == 200, answer.text
    after = listed(server)["smol"]
    assert after["context_allocated"] == 2048
    # 23,040 bytes of cells for each token, a quarter more for prompts beside the cache, and the scores of 9 heads for
    # 128 tokens of a step.
    grown = 1536 * (23_040 * 1.25 + 9 * 128 * 4)
    assert after["resident_bytes"] - before["resident_bytes"] == pytest.approx(grown, rel=0.1)
    assert listed(server)["gemma"]["context_allocated"] == 512


@pytest.mark.parametrize("model", ["smol", "gemma"])
def test_a_request_beyond_the_shorter_context_is_refused_with_its_length(server: RunningServer, model: str) -> None:
    length = listed(server)[model]["context_length"]
    too_long = server.post("/v1/completions", {"model": model, "prompt": " sea" * (length + 10), "max_tokens": 1})
    assert too_long.status_code == 400
    error = too_long.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert str(length) in error["message"].replace(",", "")
    fits = server.post("/v1/completions", {"model": model, "prompt": "The sea", "max_tokens": 2})
    assert fits.status_code == 200


def test_a_reload_keeps_the_length(server: RunningServer) -> None:
    before = listed(server)["smol"]["context_length"]
    server.post("/v1/models/unload", {"model_id": "smol"})
    server.post("/v1/models/reload", {"model_id": "smol"})
    assert listed(server)["smol"]["context_length"] == before


def test_the_plan_of_the_file_is_what_the_server_does(
    server: RunningServer, weights: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "models.toml"
    models = "".join(
        f'[[models]]\nmodel_id = {json.dumps(model["model_id"])}\nalias = "{model["alias"]}"\n'
        + ('device.max_seq_len = "auto"\n' if "device" in model else "")
        for model in tables(weights)
    )
    file.write_text(
        f'[memory]\nbudget = "{BUDGET}"\n[runtime]\nmax_seqs = 4\nprefix_cache_n = 4\ntrial = false\n{models}'
    )
    planned = json.loads(CliRunner().invoke(app, ["plan", "-f", str(file), "--json"]).stdout)["models"]
    assert {model["id"]: model["context_length"] for model in planned} == {
        name: model["context_length"] for name, model in listed(server).items()
    }
