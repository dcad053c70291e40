"""Ollama's embeddings, and what it tells of models, on real weights; with the official client too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import ollama
import pytest

from modelyard.config import validate_config
from support.server import RunningServer, serving

TEXTS = ["The sea is vast.", "Das Meer ist weit."]


@pytest.fixture(scope="module")
def yard(weights: dict[str, Path], minilm: Path) -> Iterator[RunningServer]:
    models = [
        {"model_id": str(minilm), "alias": "minilm", "idle_unload_seconds": 600},
        {"model_id": str(weights["smollm2"]), "alias": "smol", "device": {"max_seq_len": 512}},
    ]
    with serving(validate_config({"models": models}, source="test")) as running:
        yield running


@pytest.fixture
def client(yard: RunningServer) -> Iterator[ollama.Client]:
    with ollama.Client(host=yard.url, timeout=60) as client:
        yield client


def openai_vectors(yard: RunningServer, *texts: str) -> np.ndarray[Any, Any]:
    answer = yard.post("/v1/embeddings", {"model": "minilm", "input": list(texts)}).json()
    return np.array([entry["embedding"] for entry in answer["data"]])


def test_the_official_client_gets_the_vectors_that_openais_gets(yard: RunningServer, client: ollama.Client) -> None:
    answer = client.embed("minilm:latest", TEXTS)
    assert np.allclose(answer.embeddings, openai_vectors(yard, *TEXTS))
    assert (answer.model, answer.prompt_eval_count) == ("minilm:latest", 16)
    assert answer.total_duration
    assert np.allclose(client.embed("minilm", TEXTS[0]).embeddings, answer.embeddings[:1])


def test_the_older_endpoint_has_one_vector(yard: RunningServer, client: ollama.Client) -> None:
    assert np.allclose(client.embeddings("minilm", TEXTS[0]).embedding, openai_vectors(yard, TEXTS[0])[0])


def test_a_text_that_is_too_long_is_cut_unless_told_otherwise(yard: RunningServer, client: ollama.Client) -> None:
    words = "sea " * 2000
    answer = client.embed("minilm", words)
    assert answer.prompt_eval_count == 512
    # The special tokens stay around it.
    as_cut = openai_vectors(yard, "sea " * 510)
    assert np.allclose(answer.embeddings, as_cut, atol=1e-6)
    with pytest.raises(ollama.ResponseError, match="512 tokens at most") as refused:
        client.embed("minilm", words, truncate=False)
    assert refused.value.status_code == 400


def test_nothing_to_embed_loads_the_model_or_unloads_it(yard: RunningServer, client: ollama.Client) -> None:
    assert client.embed("minilm", "", keep_alive=0).embeddings == []
    assert yard.read(lambda: yard.yard.model("minilm").status) == "unloaded"
    assert client.embed("minilm", "").embeddings == []
    assert yard.read(lambda: yard.yard.model("minilm").status) == "loaded"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"model": "smol", "input": "sea"}, "'smol' generates text: it makes no embeddings. Models that do: minilm."),
        ({"model": "minilm", "input": ["sea", ""]}, "'input[1]' is an empty text"),
        ({"model": "minilm", "input": "sea", "dimensions": 5}, "are not cut. Leave it out."),
        ({"input": "sea"}, "'model' is missing"),
    ],
)
def test_refusals_are_in_ollamas_shape(yard: RunningServer, body: dict[str, Any], said: str) -> None:
    response = yard.post("/api/embed", body)
    assert response.status_code == 400
    assert list(response.json()) == ["error"]
    assert said in response.json()["error"]


def test_models_show_what_they_can_do(client: ollama.Client) -> None:
    client.embed("minilm", "")
    assert client.show("minilm").capabilities == ["embedding"]
    assert client.show("smol").capabilities == ["completion", "tools"]


def test_it_is_told_when_a_model_leaves(client: ollama.Client) -> None:
    def days(name: str) -> float:
        (model,) = [each for each in client.ps().models if each.model == name]
        assert model.expires_at is not None
        return (model.expires_at - datetime.now(UTC)).total_seconds() / 86400

    client.embed("minilm", "sea")
    assert 500 < days("minilm") * 86400 <= 600
    client.embed("minilm", "sea", keep_alive="2h")
    assert 6000 < days("minilm") * 86400 <= 7200
    client.embed("minilm", "sea", keep_alive=-1)
    assert days("minilm") > 300
    assert days("smol") > 300


def test_probes_of_ollamas_clients_are_answered(yard: RunningServer) -> None:
    assert httpx.head(f"{yard.url}/").status_code == 200
    missing = yard.get("/api/status")
    assert (missing.status_code, list(missing.json())) == (404, ["error"])
