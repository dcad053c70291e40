"""Embedding models with real weights, from their checkpoint through the engine and the yard to HTTP."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from modelyard.config import Config, validate_config
from modelyard.engine.engine import Engine
from modelyard.engine.settings import EngineSettings
from modelyard.errors import ConfigError, ModelUnloaded, UnsupportedOperation
from modelyard.hub import read_header
from modelyard.protocol.events import Cancelled, Embedded, Event, Failed, Loaded, Returned, Stopped
from modelyard.protocol.prompts import Sampling, Text, Tokens
from modelyard.protocol.requests import Cancel, Embed, Stop, Submit
from modelyard.protocol.values import SequenceId
from modelyard.yard.requests.requests import EmbeddingRequest, Request
from modelyard.yard.residency.state import LoadState
from modelyard.yard.residency.waiting import UnloadMode
from modelyard.yard.yard import Yard
from support.minilm import converted, folder, vectors_of_its_package
from support.server import WAIT_S, RunningServer, serving

TEXTS = [
    "The sea is a vast and restless place.",
    "Das Meer ist weit.",
    "x",
    "How do I reset my password?",
    "I forgot my login.",
    "def add(a, b):\n    return a + b",
    "Ünïcödé, 日本語 and 🦑!",
    "A whale, a ship, a storm, and nobody to tell of them. " * 15,
]


def config(*models: dict[str, Any], **top: Any) -> Config:
    return validate_config({"models": list(models), **top}, source="test")


def distances(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> list[float]:
    """Cosine distances of rows, which have length 1."""
    return [1 - float(a @ b) for a, b in zip(one.astype(np.float64), other.astype(np.float64), strict=True)]


@asynccontextmanager
async def started(settings: Config) -> AsyncIterator[Yard]:
    yard = Yard(settings)
    await yard.start()
    try:
        async with asyncio.timeout(WAIT_S):
            yield yard
    finally:
        await yard.close()


async def embed(yard: Yard, texts: Sequence[str], model: str | None = None) -> npt.NDArray[np.float32]:
    return (await yard.embed(EmbeddingRequest(tuple(map(Text, texts)), model))).vectors


# The vectors


@pytest.fixture(scope="module")
def reference() -> npt.NDArray[np.float32]:
    return vectors_of_its_package(TEXTS)


async def test_vectors_are_those_that_the_models_own_package_computes(
    minilm: Path, reference: npt.NDArray[np.float32]
) -> None:
    async with started(config({"model_id": str(minilm)})) as yard:
        answer = await yard.embed(EmbeddingRequest(tuple(map(Text, TEXTS))))
        alone = np.concatenate([await embed(yard, [text]) for text in TEXTS])
    assert answer.vectors.shape == (len(TEXTS), 384)
    assert answer.vectors.dtype == np.float32
    assert np.linalg.norm(answer.vectors, axis=1) == pytest.approx(1.0, abs=1e-6)
    assert max(distances(answer.vectors, reference)) < 1e-4
    # Texts that share a batch do not see each other.
    assert max(distances(answer.vectors, alone)) < 1e-5


async def test_a_checkpoint_is_quantised_and_keeps_its_meaning(
    tmp_path: Path, reference: npt.NDArray[np.float32], minilm: Path
) -> None:
    """The pooling comes from the checkpoint's own description of it."""
    path = converted(minilm.parent.parent, isq="8")
    header = read_header(path)
    assert (header.quantization, header.pooling, header.is_encoder) == ("Q8_0", 1, True)
    async with started(config({"model_id": str(path)})) as yard:
        assert max(distances(await embed(yard, TEXTS), reference)) < 1e-2


async def test_a_folder_of_a_checkpoint_is_known_for_what_it_is_before_it_is_converted(
    tmp_path: Path, weights: dict[str, Path]
) -> None:
    models = (
        {"model_id": str(folder()), "alias": "minilm", "load": "on-demand"},
        {"model_id": str(weights["smollm2"]), "alias": "smol", "load": "on-demand"},
    )
    async with started(config(*models)) as yard:
        with pytest.raises(UnsupportedOperation, match="Models that do: minilm"):
            await embed(yard, ["x"], "smol")
        with pytest.raises(UnsupportedOperation, match="Models that do: smol"):
            async with yard.generate(Request(Text("x"), "minilm")):
                pass
        assert [(model.kind, model.status) for model in yard.models()] == [
            ("embedding", "unloaded"),
            ("text", "unloaded"),
        ]


async def test_a_model_that_generates_may_embed_where_it_is_told_to(weights: dict[str, Path]) -> None:
    """It takes the last token of each text; long ones are computed in parts."""
    texts = ["The sea is wide.", "The ocean is broad.", "def add(a, b): return a + b", "The sea is wide. " * 30]
    path, size = str(weights["smollm2"]), {"max_seq_len": 512}
    async with started(config({"model_id": path, "kind": "embedding", "device": size})) as yard:
        together = await embed(yard, texts)
        alone = np.concatenate([await embed(yard, [text]) for text in texts])
    assert max(distances(together, alone)) < 1e-2
    sea, ocean, code = together[:3]
    assert sea @ ocean > sea @ code


async def test_an_encoder_is_no_text_model_whatever_it_is_called(minilm: Path) -> None:
    with pytest.raises(ConfigError, match=r"kind = 'text', but this is an encoder \(bert\), which generates no text"):
        async with started(config({"model_id": str(minilm), "kind": "text"})):
            pass


# The engine


class Driven:
    """An engine that embeds, without a yard."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.engine = Engine(EngineSettings("test", (path,), "", "embedding", **settings), self._publish)
        self.engine.start()
        self.seen: list[Event] = []

    def _publish(self, events: Sequence[Event]) -> None:
        for event in events:
            self.events.put(event)

    def until(self, kind: type[Any]) -> Any:
        while not isinstance(event := self.events.get(timeout=WAIT_S), kind):
            self.seen.append(event)
        return event

    def stopped(self, stop: Stop) -> list[Event]:
        """What happened until the end, after the last look."""
        self.seen.clear()
        self.engine.send(stop)
        self.until(Stopped)
        assert self.engine.join(WAIT_S)
        return self.seen


def many(number: int, count: int = 400) -> Embed:
    """Takes a while."""
    return Embed(SequenceId(number), (Text("A long text about the sea. " * 15),) * count)


@pytest.mark.parametrize(("suspend", "ending"), [(True, Returned), (False, Cancelled)])
def test_a_stop_ends_each_request_once(minilm: Path, suspend: bool, ending: type[Event]) -> None:
    driven = Driven(minilm)
    driven.until(Loaded)
    driven.engine.send(many(1))
    driven.engine.send(many(2))
    driven.engine.send(Embed(SequenceId(3), (Text("short"),)))
    # It does not wait for the long ones.
    assert driven.until(Embedded).sequence == 3
    assert driven.stopped(Stop(suspend=suspend)) == [ending(SequenceId(1)), ending(SequenceId(2))]


def test_a_cancelled_request_is_not_computed_further(minilm: Path) -> None:
    driven = Driven(minilm)
    driven.engine.send(many(1))
    driven.engine.send(Embed(SequenceId(2), (Text("short"),)))
    assert driven.until(Embedded).sequence == 2
    driven.engine.send(Cancel(SequenceId(1)))
    assert driven.until(Cancelled).sequence == 1
    driven.engine.send(Cancel(SequenceId(1)))
    assert driven.stopped(Stop()) == []


def test_what_it_cannot_do_is_refused_and_it_goes_on(minilm: Path) -> None:
    driven = Driven(minilm)
    driven.engine.send(Submit(SequenceId(1), Text("Say something.")))
    assert driven.until(Failed).error.code == "unsupported_operation"
    driven.engine.send(Embed(SequenceId(2), (Text("fine"), Tokens((40_000,)))))
    assert driven.until(Failed).error.param == "input[1]"
    driven.engine.send(Embed(SequenceId(3), (Text("word " * 511),)))
    assert driven.until(Failed).error.code == "context_length_exceeded"
    driven.engine.send(Embed(SequenceId(4), (Text("word " * 510),)))
    assert driven.until(Embedded).prompt_tokens == 512
    assert driven.stopped(Stop()) == []


def test_a_longer_context_does_not_let_an_input_past_the_positions_that_the_model_has(minilm: Path) -> None:
    driven = Driven(minilm, context_length=4096)
    assert driven.until(Loaded).profile.context_length == 512
    driven.engine.send(Embed(SequenceId(1), (Tokens((2000,) * 513),)))
    assert driven.until(Failed).error.code == "context_length_exceeded"
    assert driven.stopped(Stop()) == []


# The yard


async def test_requests_wait_out_an_unload_and_are_computed_after_it(minilm: Path) -> None:
    long, short = ["A long text about the sea. " * 15] * 30, TEXTS[:3]
    async with started(config({"model_id": str(minilm), "alias": "m"})) as yard:
        undisturbed = await embed(yard, short)
        running = asyncio.create_task(embed(yard, long))
        # It is with the engine after one turn of the event loop: its model is loaded.
        await asyncio.sleep(0)
        assert yard.controller.state.models[yard.directory.residency_names["m"]].leases
        await yard.unload("m", UnloadMode.SUSPEND)
        assert not running.done()
        await yard.reload("m")
        assert (await running).shape == (30, 384)
        assert max(distances(await embed(yard, short), undisturbed)) < 1e-6


async def test_an_unload_waits_for_requests_or_ends_them_by_force(minilm: Path) -> None:
    long = ["A long text about the sea. " * 15] * 30
    async with started(config({"model_id": str(minilm), "alias": "m"})) as yard:
        running = asyncio.create_task(embed(yard, long))
        await asyncio.sleep(0)
        await yard.unload("m", UnloadMode.DRAIN)
        assert len(await running) == 30
        await yard.reload("m")
        running = asyncio.create_task(embed(yard, long))
        await asyncio.sleep(0)
        await yard.unload("m", UnloadMode.FORCE)
        with pytest.raises(ModelUnloaded):
            await running


async def test_parked_weights_wake_with_the_next_request(minilm: Path) -> None:
    async with started(config({"model_id": str(minilm), "alias": "m"})) as yard:
        before = await embed(yard, TEXTS)
        await yard.unload("m", UnloadMode.PARK)
        assert yard.model("m").is_parked
        assert max(distances(await embed(yard, TEXTS), before)) < 1e-6


async def test_it_takes_turns_with_a_model_that_generates_where_only_one_of_them_fits(
    minilm: Path, weights: dict[str, Path]
) -> None:
    models = (
        {"model_id": str(minilm), "alias": "m", "load": "on-demand"},
        {"model_id": str(weights["smollm2"]), "alias": "smol", "load": "on-demand", "device": {"max_seq_len": 256}},
    )
    limits = {"memory": {"budget": "250MB"}, "runtime": {"max_seqs": 2, "prefix_cache_n": 0}}

    async def tell(yard: Yard) -> str:
        request = Request(Text("The sea is"), "smol", Sampling(temperature=0.0), max_tokens=8, ignore_eos=True)
        async with yard.generate(request) as generation:
            return await generation.text()

    async with started(config(*models, **limits)) as yard:
        told, vectors = await tell(yard), await embed(yard, TEXTS, "m")
        asked = [tell(yard), embed(yard, TEXTS, "m"), tell(yard), embed(yard, TEXTS, "m")]
        first, one, second, other = await asyncio.gather(*asked)
        needed = [model.predicted_bytes or 0 for model in yard.models()]
    assert max(needed) < 250e6 < sum(needed)
    assert first == second == told
    assert max(distances(one, vectors) + distances(other, vectors)) < 1e-6


# HTTP


@pytest.fixture(scope="module")
def server(minilm: Path, weights: dict[str, Path]) -> Any:
    models = (
        {"model_id": str(minilm), "alias": "minilm"},
        {"model_id": str(weights["smollm2"]), "alias": "smol", "device": {"max_seq_len": 512}},
    )
    with serving(config(*models)) as running:
        yield running


def refusal(server: RunningServer, **body: Any) -> tuple[int, str, str | None, str]:
    answer = server.post("/v1/embeddings", {"model": "minilm"} | body)
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"], error["message"]


@pytest.mark.parametrize(
    ("given", "param", "message"),
    [
        ([], "input", "'input' is empty"),
        ("", "input", "'input' is an empty text"),
        (["a", ""], "input[1]", "'input[1]' is an empty text"),
        ([[101], []], "input[1]", "'input[1]' is empty"),
        (["a", 7], "input[1]", "'input[1]' must be a text, a list of token ids"),
        ([True], "input[0]", "'input[0]' must be a text, a list of token ids"),
        ([[101, 30522]], "input", "'input' holds token 30522, but this model's vocabulary has ids 0 to 30521"),
        ([[101], [-1]], "input[1]", "'input[1]' holds token -1"),
        (["a"] * 2049, "input", "'input' has 2049 elements, but at most 2048 are allowed in one request"),
        (7, "input", "'input': "),
        (None, "input", "'input': "),
    ],
)
def test_input_that_is_none_is_refused_by_name(server: RunningServer, given: Any, param: str, message: str) -> None:
    status, code, named, said = refusal(server, input=given)
    assert (status, code, named) == (400, "invalid_request", param)
    assert message in said


def test_input_that_is_too_long_is_refused_by_name(server: RunningServer) -> None:
    status, code, param, message = refusal(server, input=["a", "sea " * 600])
    assert (status, code, param) == (400, "context_length_exceeded", "input[1]")
    assert "602 tokens, but the model takes 512 tokens at most" in message
    assert refusal(server, input="sea " * 1_000_000)[:3] == (400, "context_length_exceeded", "input")


def test_other_fields_are_refused_by_name(server: RunningServer) -> None:
    assert refusal(server, input="a", encoding_format="hex")[2] == "encoding_format"
    status, code, param, message = refusal(server, input="a", dimensions=256)
    assert (status, code, param) == (400, "invalid_request", "dimensions")
    assert "have 384 dimensions and are not cut" in message
    assert server.post("/v1/embeddings", {"model": "minilm", "input": "a", "dimensions": 384}).status_code == 200


def test_a_model_is_not_asked_for_what_it_cannot_do(server: RunningServer) -> None:
    status, code, param, message = refusal(server, input="a", model="smol")
    assert (status, code, param) == (400, "unsupported_operation", "model")
    assert "Models that do: minilm." in message
    for stream in (False, True):
        chat = {"model": "minilm", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
        answer = server.post("/v1/chat/completions", chat)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_operation")
        answer = server.post("/v1/completions", {"model": "minilm", "prompt": "Hi", "stream": stream})
        assert answer.status_code == 400
        assert "Models that do: smol." in answer.json()["error"]["message"]


def test_listings_say_what_each_model_does(server: RunningServer) -> None:
    minilm, smol = server.get("/v1/models").json()["data"]
    assert (minilm["kind"], minilm["capabilities"], minilm["dimensions"]) == ("embedding", ["embeddings"], 384)
    assert (smol["kind"], smol["capabilities"]) == ("text", ["completion", "chat"])
    assert "dimensions" not in smol


def test_a_client_that_leaves_leaves_nothing(server: RunningServer) -> None:
    body = {"model": "minilm", "input": ["A long text about the sea. " * 15] * 2000}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=httpx.Timeout(WAIT_S, read=1.0))
    # An unload returns when the last lease has ended: long before that many texts could be computed.
    assert server.post("/v1/models/unload", {"model_id": "minilm"}).status_code == 200
    assert server.read(lambda: server.yard.controller.state.models["minilm"].load_state) is LoadState.UNLOADED
    assert server.read(lambda: dict(server.yard.controller._inflight.open)) == {}
    assert server.post("/v1/models/reload", {"model_id": "minilm"}).status_code == 200


def test_a_request_may_say_how_long_it_waits(server: RunningServer) -> None:
    assert server.post("/v1/models/unload", {"model_id": "minilm"}).status_code == 200
    body = {"model": "minilm", "input": "a"}
    hasty = httpx.post(f"{server.url}/v1/embeddings", json=body, headers={"Prefer": "wait=0"}, timeout=WAIT_S)
    assert (hasty.status_code, hasty.json()["error"]["code"]) == (503, "model_loading")
    assert server.post("/v1/embeddings", body).status_code == 200


# Memory

BUSY = textwrap.dedent("""
    import json, sys
    from pathlib import Path
    from modelyard.engine.pooling.load import load_pooling_model
    from modelyard.engine.settings import BATCH_TOKENS, EngineSettings
    from modelyard.engine.loading.weights import WeightsPool
    from modelyard.hub import FileRequest, resolve
    from modelyard.yard.memory.pooling_footprint import predict_embedder
    from modelyard.yard.memory.prediction import ContextSettings

    def resident():
        return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) * 1024

    path, longest = sys.argv[1], int(sys.argv[2]) or None
    files = resolve(FileRequest(path, kind="embedding"))
    predicted = predict_embedder(files, ContextSettings(longest, running=32, sequences=32, batch_tokens=BATCH_TOKENS))
    before = resident()
    settings = EngineSettings("m", files.paths, "", "embedding", longest)
    engine = load_pooling_model(settings, WeightsPool(), lambda _: True)
    engine.context.embed([[300] * engine.profile.context_length])
    print(json.dumps([predicted.total_bytes, resident() - before]))
""")


@pytest.mark.parametrize(("model", "longest"), [("minilm", 0), ("smollm2", 256)])
def test_the_prediction_is_within_a_fifth_of_what_a_busy_model_takes(
    minilm: Path, weights: dict[str, Path], model: str, longest: int
) -> None:
    path = {"minilm": minilm, **weights}[model]
    command = [sys.executable, "-c", BUSY, str(path), str(longest)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True)
    predicted, measured = json.loads(done.stdout)
    assert 0.8 < predicted / measured < 1.2
