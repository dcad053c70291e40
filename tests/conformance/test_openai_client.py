"""The official OpenAI client against the real server with real weights."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from conftest import two_models
from support.server import RunningServer, serving

BOTH = ["smollm2", "google/gemma3"]


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("model", BOTH)
def test_a_chat_is_answered_whole(server: RunningServer, model: str) -> None:
    with server.client() as client:
        answer = client.chat.completions.create(model=model, messages=ask("Hello!"), max_tokens=16, temperature=0)
    choice = answer.choices[0]
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == model
    assert answer.system_fingerprint.startswith("fp_")
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens > 0
    assert 0 < answer.usage.completion_tokens <= 16
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("model", BOTH)
def test_a_streamed_chat_is_the_whole_chat_in_pieces(server: RunningServer, model: str) -> None:
    # No two words are about equally likely here: sums in another order do not change the answer.
    asked = {"model": model, "messages": ask("Count from one to nine in words."), "max_tokens": 24, "temperature": 0}
    with server.client() as client:
        whole = client.chat.completions.create(**asked)
        chunks = list(client.chat.completions.create(**asked, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == whole.choices[0].finish_reason
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert {chunk.model for chunk in chunks} == {model}
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_comes_last_in_a_stream_that_asks_for_it(server: RunningServer) -> None:
    with server.client() as client:
        chunks = list(
            client.chat.completions.create(
                model="smollm2",
                messages=ask("Hello!"),
                max_tokens=5,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens <= 5
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.parametrize("model", BOTH)
def test_a_text_is_continued_whole_and_streamed(server: RunningServer, model: str) -> None:
    asked = {"model": model, "prompt": "Once upon a time", "max_tokens": 12, "temperature": 0}
    with server.client() as client:
        whole = client.completions.create(**asked)
        chunks = list(client.completions.create(**asked, stream=True))
    assert whole.object == "text_completion"
    assert whole.choices[0].text
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "length"


def test_token_ids_are_a_prompt_too(server: RunningServer) -> None:
    with server.client() as client:
        answer = client.completions.create(model="smollm2", prompt=[504, 2471], max_tokens=2)
    assert answer.usage.prompt_tokens == 2


async def test_both_models_answer_many_clients_at_once(server: RunningServer) -> None:
    async with server.async_client() as client:

        async def stream(model: str, number: int) -> int:
            chunks = await client.chat.completions.create(
                model=model, messages=ask(f"Count from {number}."), max_tokens=12, stream=True
            )
            return len([chunk async for chunk in chunks])

        async with asyncio.TaskGroup() as group:
            streams = [group.create_task(stream(model, number)) for number in range(8) for model in BOTH]
    assert all(task.result() >= 2 for task in streams)


def test_an_alias_an_omitted_model_and_default_all_route(server: RunningServer) -> None:
    with server.client() as client:
        for name in ("org/smol", "default"):
            answer = client.chat.completions.create(model=name, messages=ask("Hi"), max_tokens=1)
            assert answer.model == "smollm2"
    for model in ({}, {"model": None}):
        answer = server.post("/v1/chat/completions", {"messages": ask("Hi"), "max_tokens": 1, **model})
        assert answer.json()["model"] == "smollm2"


def test_an_unknown_model_is_not_found_and_the_known_are_named(server: RunningServer) -> None:
    with server.client() as client, pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="smollm", messages=ask("Hi"))
    assert refused.value.code == "model_not_found"
    assert refused.value.param == "model"
    assert "smollm2, google/gemma3" in refused.value.message
    assert "Did you mean 'smollm2'?" in refused.value.message


def test_models_are_listed_with_what_clients_read(server: RunningServer) -> None:
    with server.client() as client:
        smol, gemma = client.models.list().data
        same = client.models.retrieve("google/gemma3")
    assert (smol.id, smol.object, smol.owned_by) == ("smollm2", "model", "local")
    assert smol.status == "loaded"
    assert smol.default is True
    assert "org/smol" in smol.aliases
    assert (smol.context_length, smol.quantization, smol.size_bytes) == (2048, "Q4_1", 96576768)
    assert gemma.quantization == "Q4_K_M"
    assert not hasattr(gemma, "default")
    assert not hasattr(gemma, "tools_available")
    assert same == gemma


@pytest.mark.long
def test_a_seed_repeats_the_answer_and_another_seed_does_not(weights: dict[str, Path]) -> None:
    """On a server in the same state: the least bit of difference in the arithmetic can turn a random choice."""

    def answers() -> list[str]:
        config = two_models(weights, max_seqs=1, prefix_cache_n=0)
        alone = config.model_copy(update={"models": config.models[:1]})
        with serving(alone) as fresh, fresh.client() as client:
            asked = {"model": "smollm2", "prompt": "My favourite", "max_tokens": 24, "temperature": 1.5}
            return [client.completions.create(**asked, seed=seed).choices[0].text for seed in (7, 8, -1, 2**40)]

    first = answers()
    assert answers() == first
    assert len(set(first)) == 4


@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_ends_before_a_stop_string_that_is_split_over_tokens(server: RunningServer, stream: bool) -> None:
    asked = {"model": "smollm2", "prompt": "One, two, three, four, five, six,", "max_tokens": 40, "temperature": 0}
    with server.client() as client:
        free = client.completions.create(**asked).choices[0].text
        stop = free[5:14]
        answer = client.completions.create(**asked, stop=["never this", stop], stream=stream)
        if stream:
            chunks = list(answer)
            text, reason = "".join(chunk.choices[0].text for chunk in chunks), chunks[-1].choices[0].finish_reason
        else:
            text, reason = answer.choices[0].text, answer.choices[0].finish_reason
    assert text == free[: free.index(stop)]
    assert reason == "stop"


def test_max_tokens_ends_the_answer_with_length(server: RunningServer) -> None:
    with server.client() as client:
        answer = client.chat.completions.create(
            model="smollm2", messages=ask("Tell me a story."), max_completion_tokens=3
        )
    assert answer.usage.completion_tokens == 3
    assert answer.choices[0].finish_reason == "length"


def test_a_banned_token_is_never_drawn_and_a_forced_one_always(server: RunningServer) -> None:
    asked = {"model": "smollm2", "prompt": "The capital of France is", "max_tokens": 1, "temperature": 0}
    with server.client() as client:
        assert client.completions.create(**asked).choices[0].text == " Paris"
        forced = client.completions.create(**asked, logit_bias={"504": 100})
        again = client.completions.create(**asked | {"max_tokens": 4}, logit_bias={"504": 100})
        banned = client.completions.create(**asked, logit_bias={"7042": -100})
    assert again.choices[0].text == forced.choices[0].text * 4
    assert banned.choices[0].text != " Paris"


def test_ignore_eos_goes_on_to_the_last_token(server: RunningServer) -> None:
    asked = {"model": "smollm2", "messages": ask("Say hi."), "max_tokens": 120, "temperature": 0}
    with server.client() as client:
        assert client.chat.completions.create(**asked).choices[0].finish_reason == "stop"
        answer = client.chat.completions.create(**asked, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 120


def test_a_repeated_prompt_is_not_computed_again(server: RunningServer) -> None:
    asked = {"model": "smollm2", "messages": ask("A prompt of its own: " + "word " * 60), "max_tokens": 1}
    with server.client() as client:
        first = client.chat.completions.create(**asked)
        second = client.chat.completions.create(**asked)
    assert second.usage.prompt_tokens_details.cached_tokens == first.usage.prompt_tokens - 1


def test_text_parts_and_every_role_are_understood(server: RunningServer) -> None:
    with server.client() as client:
        answer = client.chat.completions.create(
            model="smollm2",
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
                {"role": "assistant", "content": "Hi."},
                {"role": "user", "content": "Bye", "name": "me"},
            ],
            max_tokens=2,
        )
    assert answer.choices[0].message.content is not None


def test_characters_that_are_split_over_tokens_arrive_whole(server: RunningServer) -> None:
    """This model has no token for the character: it writes it with three, of which none is text by itself."""
    prompt = "Emoji: 🎉 🎉 🎉 🎉 🎉 🎉 🎉 🎉 🎉"
    with server.client() as client:
        chunks = list(
            client.completions.create(
                model="smollm2",
                prompt=prompt,
                max_tokens=20,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    text = "".join(chunk.choices[0].text for chunk in chunks[:-1])
    assert text.count("🎉") >= 5
    assert chunks[-1].usage.completion_tokens > 2 * len(text.replace(" ", ""))
    assert "\N{REPLACEMENT CHARACTER}" not in text


def test_threads_share_one_server(server: RunningServer) -> None:
    def work(number: int) -> str:
        with server.client() as client:
            model = BOTH[number % 2]
            return client.chat.completions.create(model=model, messages=ask("Hello!"), max_tokens=4).model

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(16))) == BOTH * 8
