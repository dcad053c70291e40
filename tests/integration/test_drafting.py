"""A small model drafts what a large one verifies: the same answer in fewer steps of the large one."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import llama_cpp.llama_cpp as lib
import pytest

from modelyard.config import validate_config
from modelyard.engine.llama import Batch, Context
from modelyard.engine.loading.weights import WeightsKey, WeightsPool
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.engine.speculative.draft_model import DraftModel
from modelyard.protocol.events import LoadFailed
from modelyard.protocol.messages import Resume
from modelyard.protocol.prompts import Sampling
from modelyard.protocol.requests import Stop
from modelyard.protocol.values import SequenceId
from support.engine_driver import Driven, Steps, engine
from support.server import serving

# Source: llama.cpp, include/llama.h, enum llama_ftype.
ALL_F32 = 0
PROMPT = "One, two, three, four, five, six, seven,"
LENGTH = 64


@pytest.fixture(scope="module")
def large(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with weights five times as large."""
    path = tmp_path_factory.mktemp("large") / "f32.gguf"
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = ALL_F32, True
    assert lib.llama_model_quantize(bytes(weights["smollm2"]), bytes(path), ctypes.byref(params)) == 0
    return path


@pytest.fixture
def small(weights: dict[str, Path]) -> Path:
    return weights["smollm2"]


@pytest.fixture
def drafted(large: Path, small: Path) -> Iterator[Driven]:
    driven = engine(large, draft=(small,), draft_name="small")
    yield driven
    driven.stopped(Stop())


@pytest.fixture
def plainly(large: Path) -> Callable[..., str]:
    """Answers of the large model alone."""

    def answer(prompt: str, **request: object) -> str:
        driven = engine(large)
        text = driven.answer(prompt, **request)
        driven.stopped(Stop())
        return text

    return answer


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> dict[bool, int]:
    """Steps of draft models, and of others."""
    counts = {True: 0, False: 0}
    drafting = set()
    decode, make = Context.decode, DraftModel.__init__

    def making(drafter: DraftModel, context: Context, *rest: object) -> None:
        drafting.add(context)
        make(drafter, context, *rest)  # type: ignore[arg-type]

    def counting(context: Context, batch: Batch, length: int) -> int:
        counts[context in drafting] += 1
        return decode(context, batch, length)

    monkeypatch.setattr(DraftModel, "__init__", making)
    # How much is drafted is not to depend on the machine: it is one that memory bounds, where drafts pay.
    monkeypatch.setattr(StepCost, "relative", lambda _, tokens: 0.98 + 0.02 * tokens)
    monkeypatch.setattr(Context, "decode", counting)
    return counts


def test_a_drafted_answer_is_the_same_in_half_the_steps(
    steps: dict[bool, int], plainly: Callable[..., str], large: Path, small: Path
) -> None:
    expected = plainly(PROMPT, max_tokens=LENGTH)
    alone, steps[False] = steps[False], 0
    driven = engine(large, draft=(small,), draft_name="small")
    assert driven.answer(PROMPT, max_tokens=LENGTH) == expected
    assert driven.finished().usage.completion_tokens == LENGTH
    driven.stopped(Stop())
    assert steps[False] < 0.6 * alone
    assert steps[True] > 0


@pytest.mark.parametrize("length", [1, 2, 17, 18])
def test_it_ends_where_it_is_to_end_also_within_a_draft(
    drafted: Driven, plainly: Callable[..., str], length: int
) -> None:
    assert drafted.answer(PROMPT, max_tokens=length) == plainly(PROMPT, max_tokens=length)
    assert drafted.finished().usage.completion_tokens == length


@pytest.mark.long
def test_a_conversation_is_drafted_on_from_what_the_draft_model_has_read(
    drafted: Driven, plainly: Callable[..., str]
) -> None:
    text = PROMPT + drafted.answer(PROMPT, max_tokens=20)
    assert drafted.answer(text, number=1, max_tokens=20) == plainly(text, max_tokens=20)
    assert drafted.answer("Blue, red, green, blue,", number=2, max_tokens=20) == plainly(
        "Blue, red, green, blue,", max_tokens=20
    )


def test_a_seeded_draw_is_not_drafted(steps: dict[bool, int], large: Path, small: Path) -> None:
    driven = engine(large, draft=(small,), draft_name="small")
    driven.answer(PROMPT, Sampling(temperature=0.7, seed=3), max_tokens=LENGTH)
    driven.stopped(Stop())
    assert steps[True] == 0


@pytest.mark.long
def test_many_streams_and_more_than_the_cache_holds_all_end(large: Path, small: Path) -> None:
    driven = engine(large, draft=(small,), draft_name="small", context_length=256)
    for number in range(6):
        driven.submit(number, f"{number}. {PROMPT}", max_tokens=48)
    for number in range(6):
        assert driven.finished(number).usage.completion_tokens == 48
    driven.stopped(Stop())


def test_a_model_of_another_vocabulary_cannot_draft(large: Path, weights: dict[str, Path]) -> None:
    pool = WeightsPool()
    driven = Driven(large, pool=pool, draft=(weights["gemma3"],), draft_name="gemma")
    event = driven._events.get(timeout=60)
    while not isinstance(event, LoadFailed):
        event = driven._events.get(timeout=60)
    assert "'gemma' cannot draft for it: its vocabulary is another one" in event.reason
    assert driven.engine.join(60)
    assert [pool.users(WeightsKey.of([path])) for path in (large, weights["gemma3"])] == [0, 0]


def test_the_draft_model_is_borrowed_and_not_loaded_twice(large: Path, small: Path) -> None:
    pool, key = WeightsPool(), WeightsKey.of([small])
    resident = engine(small, pool=pool)
    driven = engine(large, pool=pool, draft=(small,), draft_name="small")
    assert pool.users(key) == 2
    resident.stopped(Stop())
    # Its owner has gone: the weights stay for as long as they are borrowed.
    assert len(driven.answer(PROMPT, max_tokens=LENGTH)) > 0
    driven.stopped(Stop())
    assert pool.users(key) == 0


def test_an_answer_that_is_suspended_between_drafts_goes_on_without(
    large: Path, small: Path, plainly: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = plainly(PROMPT, max_tokens=LENGTH)
    steps = Steps(monkeypatch)
    first, second = engine(large, draft=(small,), draft_name="small"), engine(large)
    steps.after(12, partial(first.send, Stop(suspend=True, keep_bytes=2**30)))
    first.submit(0, PROMPT, max_tokens=LENGTH)
    (state,) = first.suspended()
    second.send(Resume(state))
    second.finished()
    second.stopped(Stop())
    assert first.texts.get(SequenceId(0), "") + second.texts[SequenceId(0)] == expected


def test_a_server_counts_the_weights_that_a_draft_model_lends_once(large: Path, small: Path) -> None:
    models = [
        {"model_id": str(large), "alias": "large", "draft": "small", "device": {"max_seq_len": 512}},
        {"model_id": str(small), "alias": "small", "device": {"max_seq_len": 512}},
    ]
    with serving(validate_config({"default_model_id": "large", "models": models})) as server:
        listed = {model["id"]: model for model in server.get("/v1/models").json()["data"]}
        assert listed["small"]["shared_bytes"] == listed["large"]["shared_bytes"] > 0.9 * small.stat().st_size
        assert server.post("/v1/models/unload", {"model_id": "small"}).json()["status"] == "unloaded"
        body = {"model": "large", "prompt": PROMPT, "max_tokens": 16, "temperature": 0}
        assert server.post("/v1/completions", body).json()["usage"]["completion_tokens"] == 16
        assert server.post("/v1/models/reload", {"model_id": "large"}).status_code == 200
