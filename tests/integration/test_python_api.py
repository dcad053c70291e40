"""The Python API on real weights, synchronous and asynchronous."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openai
import pytest
from pydantic import BaseModel, Field

from modelyard import (
    AsyncModel,
    EmbeddingModelBuilder,
    Model,
    MultiModelBuilder,
    TextModelBuilder,
    create_app,
)
from modelyard.errors import ConfigError, InvalidRequest, UnsupportedOperation

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0
CONTEXT = 1024


def smol(drawn_weights: dict[str, Path]) -> TextModelBuilder:
    return TextModelBuilder(drawn_weights["smollm2"]).with_max_seq_len(CONTEXT)


def gemma(drawn_weights: dict[str, Path]) -> TextModelBuilder:
    builder = TextModelBuilder(drawn_weights["gemma3"]).with_max_seq_len(CONTEXT)
    return builder.with_chat_template(ROOT / "examples" / "gemma.jinja")


def both(drawn_weights: dict[str, Path]) -> MultiModelBuilder:
    return (
        MultiModelBuilder()
        .add_model_with_alias("smol", smol(drawn_weights))
        .add_model_with_alias("gemma", gemma(drawn_weights))
        .with_default_model("smol")
        .with_runtime(max_seqs=8, prefix_cache_n=4)
    )


@pytest.fixture(scope="module")
def model(drawn_weights: dict[str, Path]) -> Iterator[Model]:
    with both(drawn_weights).build() as model:
        yield model


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def in_use(model: Model) -> int:
    """Requests that are running or waiting."""
    census = model.thread.call_sync(lambda twin: twin.yard.monitor.metrics())
    return sum(each.waiting + each.running for each in census.models)


async def all_ended(model: AsyncModel) -> None:
    """Wait until all requests are over; their ends change the residency, but nobody is told of that."""
    async with asyncio.timeout(WAIT_S):
        while any(each.waiting + each.running for each in model.yard.monitor.metrics().models):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_an_answer_is_the_same_whole_in_pieces_and_by_openais_client(model: Model) -> None:
    greedy: dict[str, Any] = {"temperature": 0, "max_tokens": 12}
    whole = model.send_chat_request("What is the capital of France?", **greedy)
    said = whole.choices[0].message.content
    assert said
    assert (whole.model, whole.choices[0].finish_reason) == ("smol", "length")
    assert whole.usage.completion_tokens == 12
    chunks = list(model.stream_chat_request("What is the capital of France?", **greedy))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12
    with model.openai_client() as client:
        messages: Any = [{"role": "user", "content": "What is the capital of France?"}]
        completion = client.chat.completions.create(model="default", messages=messages, **greedy)
        assert completion.choices[0].message.content == said
        stream = client.chat.completions.create(model="smol", messages=messages, stream=True, **greedy)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == said


def test_each_request_goes_to_the_model_that_it_names(model: Model) -> None:
    for name, answering in ((None, "smol"), ("gemma", "gemma"), ("default", "smol")):
        assert model.send_chat_request_with_model("Hi", name, max_tokens=2).model == answering
    assert model.list_models_with_status() == [("smol", "loaded"), ("gemma", "loaded")]
    assert model.max_sequence_length_with_model("gemma") == CONTEXT


def test_eight_threads_ask_two_models_fifty_things_at_once(model: Model) -> None:
    def ask(number: int) -> int:
        name = ("smol", "gemma")[number % 2]
        if number % 3:
            answer = model.send_chat_request_with_model(f"Say {number}.", name, max_tokens=4)
            assert answer.model == name
            return answer.usage.completion_tokens
        chunks = list(model.stream_chat_request_with_model(f"Say {number}.", name, max_tokens=4))
        assert {chunk.model for chunk in chunks} == {name}
        assert chunks[-1].usage is not None
        return chunks[-1].usage.completion_tokens

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(ask, range(50), timeout=2 * WAIT_S))
    assert len(counts) == 50
    assert all(1 <= count <= 4 for count in counts)
    assert in_use(model) == 0


def test_streams_that_are_left_leave_nothing_behind(model: Model) -> None:
    with model.stream_chat_request("Tell me a long story.") as stream:
        for _, _ in zip(range(4), stream, strict=False):
            pass
    next(model.stream_chat_request("Tell me a long story."))
    gc.collect()
    with model.openai_client() as client:
        messages: Any = [{"role": "user", "content": "Tell me a long story."}]
        with client.chat.completions.create(model="gemma", messages=messages, stream=True) as chunks:
            next(chunks)
    model.thread.call(all_ended)


def test_texts_become_tokens_and_back(model: Model) -> None:
    text = "Zürich is a city."
    bare = model.tokenize_with_model(text, "gemma", add_special=False)
    assert model.detokenize_with_model(bare, "gemma") == text
    assert len(model.tokenize_with_model(text, "gemma")) == len(bare) + 1
    asked = model.send_chat_request("Hi", max_tokens=1).usage.prompt_tokens
    assert len(model.tokenize([{"role": "user", "content": "Hi"}])) == asked
    with pytest.raises(InvalidRequest):
        model.detokenize([10**9])


class Animal(BaseModel):
    kind: Literal["cat", "dog"]
    legs: int = Field(ge=0, le=9)


def test_an_answer_is_an_instance_of_the_callers_class(model: Model) -> None:
    animal = model.generate_structured(Animal, "Describe a cat.", temperature=0, max_tokens=64)
    assert isinstance(animal, Animal)
    with pytest.raises(InvalidRequest, match="cut off after 2 tokens"):
        model.generate_structured(Animal, "Describe a cat.", max_tokens=2)


def test_a_call_is_typed_and_can_be_answered(model: Model) -> None:
    tools = [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
                    "required": ["city"],
                    "additionalProperties": False,
                },
            },
        }
    ]
    asked = [{"role": "user", "content": "How is the weather in Rome?"}]
    calling: dict[str, Any] = {
        "tools": tools,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": 0,
    }
    answer = model.send_chat_request(asked, max_tokens=64, **calling)
    (call,) = answer.choices[0].message.tool_calls or ()
    assert (answer.choices[0].finish_reason, call.function.name) == ("tool_calls", "weather")
    told = {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}
    again = model.send_chat_request([*asked, answer.choices[0].message, told], tools=tools, max_tokens=4)
    assert again.usage.completion_tokens >= 1
    chunks = list(model.stream_chat_request(asked, max_tokens=64, **calling))
    pieces = [piece for chunk in chunks for piece in chunk.choices[0].delta.tool_calls or ()]
    assert "".join(piece.function.arguments for piece in pieces) == call.function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_log_probabilities_are_typed(model: Model) -> None:
    answer = model.send_chat_request("Hi", logprobs=True, top_logprobs=2, temperature=0, max_tokens=3)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert [len(token.top_logprobs) for token in logprobs.content] == [2, 2, 2]
    chunks = model.stream_chat_request("Hi", logprobs=True, top_logprobs=2, temperature=0, max_tokens=3)
    told = [choice.logprobs.content for chunk in chunks for choice in chunk.choices if choice.logprobs is not None]
    assert [token.token for content in told for token in content] == [token.token for token in logprobs.content]


def test_models_are_unloaded_and_come_back(model: Model) -> None:
    model.unload_model("gemma")
    assert not model.is_model_loaded("gemma")
    assert model.plan("gemma").outcome == "fits"
    assert model.send_chat_request_with_model("Hi", "gemma", max_tokens=2).model == "gemma"
    model.unload_model("gemma", "park")
    model.reload_model("gemma")
    assert model.is_model_loaded("gemma")


def test_models_come_and_go_while_others_stream(model: Model, drawn_weights: dict[str, Path], minilm: Path) -> None:
    ended = threading.Event()

    def stream(name: str) -> int:
        chunks = 0
        while not ended.is_set():
            chunks += len(list(model.stream_chat_request_with_model("Count to ten.", name, max_tokens=16)))
        return chunks

    with ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(stream, name) for name in ("smol", "gemma")]
        try:
            model.add_model_with_alias("minilm", EmbeddingModelBuilder(minilm))
            vectors = model.generate_embeddings_with_model(["A cat.", "A kitten.", "The tax office."], "minilm")
            model.add_model_with_alias("again", smol(drawn_weights))
            assert model.send_chat_request_with_model("Hi", "again", max_tokens=2).model == "again"
            model.remove_model("minilm")
            model.remove_model("again")
        finally:
            ended.set()
        assert all(each.result(WAIT_S) > 0 for each in streams)
    likeness = vectors.vectors @ vectors.vectors.T
    assert likeness[0, 1] > likeness[0, 2]
    np.testing.assert_allclose(np.diag(likeness), 1, rtol=1e-3)
    assert vectors.data[1].embedding == vectors.vectors[1].tolist()
    assert model.list_models() == ["smol", "gemma"]
    with pytest.raises(UnsupportedOperation):
        model.generate_embeddings("A cat.")


async def test_fifty_tasks_ask_two_models_at_once(drawn_weights: dict[str, Path]) -> None:
    async def ask(model: AsyncModel, number: int) -> str:
        name = ("smol", "gemma")[number % 2]
        if number % 3:
            return (await model.send_chat_request_with_model(f"Say {number}.", name, max_tokens=4)).model
        if number % 2:
            async with model.stream_chat_request_with_model("Tell me a long story.", name) as stream:
                return (await anext(stream)).model
        async for chunk in model.stream_chat_request_with_model(f"Say {number}.", name, max_tokens=4):
            answering = chunk.model
        return answering

    async with asyncio.timeout(2 * WAIT_S):
        async with await both(drawn_weights).build_async() as model:
            answered = await asyncio.gather(*(ask(model, number) for number in range(50)))
            assert answered == ["smol", "gemma"] * 25
            animal = await model.generate_structured(Animal, "Describe a dog.", temperature=0, max_tokens=64)
            assert animal.kind in ("cat", "dog")
            async with model.async_openai_client() as client:
                messages: Any = [{"role": "user", "content": "Hi"}]
                completion = await client.chat.completions.create(model="gemma", messages=messages, max_tokens=2)
                assert completion.model == "gemma"
                with pytest.raises(openai.NotFoundError, match="Known: smol, gemma"):
                    await client.chat.completions.create(model="none", messages=messages)
            await all_ended(model)


def test_embeddings_by_openais_client_are_those_of_the_model(minilm: Path) -> None:
    with EmbeddingModelBuilder(minilm).build() as model, model.openai_client() as client:
        own = model.generate_embeddings("A cat.")
        (theirs,) = client.embeddings.create(model="default", input="A cat.").data
        np.testing.assert_allclose(theirs.embedding, own.vectors[0], rtol=1e-5)
        assert own.usage.prompt_tokens == own.usage.total_tokens > 0


def test_a_build_whose_second_model_is_missing_frees_the_first(drawn_weights: dict[str, Path], tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    builder = both(drawn_weights).add_model(TextModelBuilder(tmp_path / "nowhere.gguf"))
    with pytest.raises(ConfigError, match="does not exist"):
        builder.build()
    assert set(threading.enumerate()) <= threads


@pytest.mark.long
@pytest.mark.timeout(300)
def test_fifty_builds_and_closes_leave_nothing(drawn_weights: dict[str, Path]) -> None:
    builder = TextModelBuilder(drawn_weights["smollm2"]).with_max_seq_len(64).with_max_num_seqs(1)
    threads: list[int] = []
    sizes: list[int] = []
    files: list[int] = []
    for _ in range(5):
        for _ in range(10):
            with builder.build() as model:
                pass
            threads.append(threading.active_count())
        with builder.build() as model:
            model.send_chat_request("Hi", max_tokens=1)
        gc.collect()
        sizes.append(resident_bytes())
        files.append(sum(1 for _ in Path("/proc/self/fd").iterdir()))
    assert max(threads) == threads[0]
    assert max(files) == files[0]
    # The first ones warm caches up; a leak of the least model would be more than this each time.
    assert sizes[-1] - sizes[0] < 20e6


async def test_the_application_is_mounted_in_another(model: Model) -> None:
    import httpx2
    from fastapi import FastAPI

    outer = FastAPI()

    @outer.get("/own")
    async def own() -> str:
        return "own"

    outer.mount("/llm", create_app(model))
    transport = httpx2.ASGITransport(outer)
    async with httpx2.AsyncClient(transport=transport, base_url="http://shop.example", timeout=WAIT_S) as client:
        assert (await client.get("/own")).json() == "own"
        listed = await client.get("/llm/v1/models")
        assert [each["id"] for each in listed.json()["data"]] == ["smol", "gemma"]
        asked = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        answer = await client.post("/llm/v1/chat/completions", json=asked)
        assert answer.json()["usage"]["completion_tokens"] == 2
        # Each dialect keeps its own errors.
        refused = await client.post("/llm/v1/messages", json={"model": "none", "max_tokens": 1, "messages": []})
        assert refused.json()["type"] == "error"
