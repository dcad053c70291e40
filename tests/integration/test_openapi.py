"""The server does what its description says: whatever it is asked, it answers as declared, and never with a fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import two_models
from modelyard.api.openapi.operations import OPERATIONS
from modelyard.config import validate_config
from support.fuzzing import MODELS, OF_TOKENS, fuzz, narrowed
from support.gguf_writer import tiny_ranker, write
from support.scripted_engines import ScriptedEngines
from support.server import RunningServer, serving

FEW = {"type": "integer", "minimum": 1, "maximum": 4}
SHORT = {
    "model": {"enum": ["smollm2", "google/gemma3"]},
    **{name: {"enum": [None, 1, 2]} for name in ("n", "n_cmpl")},
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"), FEW),
    "options": {"type": "object", "properties": {"num_predict": FEW}, "required": ["num_predict"]},
}


@pytest.fixture(scope="session")
def server(drawn_server: RunningServer) -> RunningServer:
    return drawn_server


@pytest.fixture(scope="module")
def scripted(drawn_weights: dict[str, Path]) -> Iterator[RunningServer]:
    """The real server on engines that answer at once, whatever they are asked."""
    engines = ScriptedEngines(answer=lambda _: ["Hello", " world"])
    with serving(two_models(drawn_weights), engines.make_handle) as running:
        yield running
    assert engines.end()


@pytest.fixture(scope="module")
def encoders(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """What embeds, and what ranks: of random weights, since it is asked for no more than an answer."""
    ranker = write(tmp_path_factory.mktemp("ranker") / "ranker.gguf", tiny_ranker())
    models = [{"model_id": str(minilm), "alias": "minilm"}, {"model_id": str(ranker), "alias": "reranker"}]
    with serving(validate_config({"models": models}, source="test")) as running:
        yield running


def described(server: RunningServer) -> dict[str, Any]:
    document: dict[str, Any] = server.get("/openapi.json").json()
    return document


@pytest.mark.long
@pytest.mark.timeout(600)
def test_some_thousand_requests_are_answered_as_declared(scripted: RunningServer) -> None:
    fuzzed = fuzz(scripted, narrowed(described(scripted), MODELS, without=OF_TOKENS), examples=3)
    assert not fuzzed.failures, "\n\n".join(fuzzed.failures)
    assert fuzzed.requests > 2000
    assert {200, 400, 404, 405} <= set(fuzzed.statuses)
    assert scripted.get("/health/ready").status_code == 200


@pytest.mark.timeout(600)
def test_real_weights_answer_as_declared(server: RunningServer) -> None:
    document = described(server)
    generates = {path for path, each in document["paths"].items() if "507" in each.get("post", {}).get("responses", {})}
    # The summary of a compaction is as long as the model makes it.
    long = {path for path in generates if path.endswith(("reload", "compact"))}
    others = document["paths"].keys() - (generates - long)
    fuzzed = fuzz(server, narrowed(document, SHORT, without=others), examples=4, only_valid=True)
    assert not fuzzed.failures, "\n\n".join(fuzzed.failures)
    assert fuzzed.requests > 40
    assert fuzzed.statuses[200] > 20
    assert server.get("/health/ready").status_code == 200


def test_the_examples_work_on_the_models_that_they_name(server: RunningServer, encoders: RunningServer) -> None:
    answers = {}
    for (method, path), said in OPERATIONS.items():
        # A form has a file in it, and needs a model that hears; "coder" stands for one that fills gaps.
        # The summary of a compaction is as long as the model makes it, and ids are of what was stored before.
        # The others change which models there are.
        others = ("/api/create", "/api/copy", "/api/delete", "/models")
        if path.endswith(("compact", "_lora_adapter", "lora-adapters")) or "{" in path or path in others:
            continue
        if said.example is not None and "file" not in said.example and said.example.get("model") != "coder":
            assert method == "post"
            asked = encoders if said.example.get("model") in ("minilm", "reranker") else server
            answers[path] = asked.post(path, said.example)
    assert server.post("/v1/models/reload", {"model_id": "smollm2"}).status_code == 200
    assert {path: answer.text for path, answer in answers.items() if answer.status_code != 200} == {}
    assert len(answers) > 10
