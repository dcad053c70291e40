"""Sequences that leave an engine in the middle of their answers go on in another, as if nothing had happened."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.engine.llama import Batch, ComputeSettings, Context, Model, Weights
from modelyard.engine.loading.weights import WeightsPool
from modelyard.engine.scheduling.scheduler import Scheduler
from modelyard.protocol.events import Cancelled, Died, Failed, Finished, Suspended
from modelyard.protocol.messages import Resume
from modelyard.protocol.prompts import Chat, Sampling, Tokens
from modelyard.protocol.requests import Cancel, Stop
from modelyard.protocol.suspended import SuspendedSequence
from modelyard.protocol.values import SequenceId, TokenLogprob, Usage
from support.engine_driver import GREEDY, Driven, Steps, engine, long_prompt

PLENTY = 2**40
SUSPEND = Stop(suspend=True, keep_bytes=PLENTY)
SEEDED = Sampling(temperature=0.9, seed=7, top_k=0, top_p=1.0, min_p=0.0)
PENALIZED = replace(SEEDED, repetition_penalty=1.3, presence_penalty=0.4)
# Never complete, but begun by most words' ends: text is held back all the time.
NEAR_STOPS = tuple(f"{end}☃" for end in "abcdefghijklmnopqrstuvwxyz. ,")
PROMPT = "Once upon a time, in a small village by the sea,"
FIRST = SequenceId(0)
PROMPTS = [
    "The capital of France is",
    "In the year 1969, three men",
    "def fibonacci(n):",
    "My favourite animal is the",
    "The sea is a vast and",
    "Water boils at",
    "Once upon a time, in a small village,",
    "The three primary colours are",
]


@pytest.fixture(params=["smollm2", pytest.param("gemma3", marks=pytest.mark.long)])
def path(request: pytest.FixtureRequest, drawn_weights: dict[str, Path]) -> Path:
    return drawn_weights[request.param]


@pytest.fixture
def smollm2(drawn_weights: dict[str, Path]) -> Path:
    return drawn_weights["smollm2"]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@dataclass(frozen=True)
class Disturbed:
    """An answer that was suspended, its logprobs, and at each suspension: bytes of KV, tokens in it, text held back."""

    text: str
    finished: Finished
    sizes: list[int]
    lengths: list[int]
    held: list[str]
    logprobs: list[TokenLogprob] = field(default_factory=list)


def disturbed(
    path: Path,
    steps: Steps,
    after: Iterable[int],
    prompt: str | Tokens | Chat,
    sampling: Sampling,
    between: Callable[[SuspendedSequence], SuspendedSequence] = lambda state: state,
    **request: Any,
) -> Disturbed:
    """An answer that is suspended after so many steps, again and again, each time to go on in a new engine.

    between: what happens to it between two engines.
    """
    whole = Disturbed("", Finished(FIRST, "stop", Usage(0, 0, 0)), [], [], [])
    text = ""
    driven = Driven(path)
    driven.loaded()
    points = list(after)
    steps.after(points.pop(0), partial(driven.send, SUSPEND))
    driven.submit(0, prompt, sampling, **request)
    while True:
        (state,) = driven.suspended()
        text += driven.texts.get(FIRST, "")
        whole.sizes.append(state.size_bytes)
        whole.lengths.append(len(state.kept.tokens) if state.kept else 0)
        whole.held.append(state.live.output._stop._held if state.live else "")
        state = between(state)
        whole.logprobs.extend(driven.logprobs.get(FIRST, []))
        driven = Driven(path)
        if points:
            steps.after(points.pop(0), partial(driven.send, SUSPEND))
            driven.send(Resume(state))
            continue
        driven.send(Resume(state))
        finished = driven.finished()
        assert driven.accepted == {}, "it is accepted once, where it was submitted"
        driven.stopped(Stop())
        whole.logprobs.extend(driven.logprobs.get(FIRST, []))
        return replace(whole, text=text + driven.texts.get(FIRST, ""), finished=finished)


def undisturbed(path: Path, prompt: str | Tokens | Chat, sampling: Sampling, **request: Any) -> tuple[str, Finished]:
    driven = Driven(path)
    text = driven.answer(prompt, sampling, **request)
    driven.stopped(Stop())
    return text, driven.finished()


@pytest.mark.parametrize(
    ("model", "sampling"),
    [("smollm2", GREEDY), ("smollm2", SEEDED), pytest.param("gemma3", PENALIZED, marks=pytest.mark.long)],
    ids=["greedy", "seeded", "penalized"],
)
def test_an_answer_suspended_again_and_again_is_the_undisturbed_one(
    drawn_weights: dict[str, Path], steps: Steps, model: str, sampling: Sampling
) -> None:
    path = drawn_weights[model]
    expected = undisturbed(path, PROMPT, sampling)
    answer = disturbed(path, steps, (9, 13, 1, 6), PROMPT, sampling)
    assert (answer.text, answer.finished) == expected
    assert all(answer.sizes)
    assert answer.finished.usage.completion_tokens == 48


def test_text_that_a_stop_string_may_still_claim_is_neither_lost_nor_said_twice(smollm2: Path, steps: Steps) -> None:
    expected = undisturbed(smollm2, PROMPT, PENALIZED, stop=NEAR_STOPS)
    answer = disturbed(smollm2, steps, range(3, 9), PROMPT, PENALIZED, stop=NEAR_STOPS)
    assert (answer.text, answer.finished) == expected
    assert any(answer.held)


def test_a_stop_string_is_found_across_suspensions(smollm2: Path, steps: Steps) -> None:
    said, _ = undisturbed(smollm2, PROMPT, GREEDY)
    # The text of the tokens beside which the engine is suspended.
    stop = said[60:90]
    expected, finished = undisturbed(smollm2, PROMPT, GREEDY, stop=(stop,))
    assert finished.reason == "stop"
    assert expected == said[: said.index(stop)]
    answer = disturbed(smollm2, steps, [9, 1, 1, 1], PROMPT, GREEDY, stop=(stop,))
    assert (answer.text, answer.finished.reason) == (expected, "stop")
    assert any(answer.held)


def test_a_prompt_that_is_suspended_half_way_is_not_computed_twice(smollm2: Path, steps: Steps) -> None:
    prompt = long_prompt(smollm2, 600)
    expected = undisturbed(smollm2, prompt, GREEDY)
    answer = disturbed(smollm2, steps, [1], prompt, GREEDY)
    assert answer.lengths == [512]
    assert (answer.text, answer.finished) == expected


def test_an_answer_to_a_prompt_longer_than_the_window_goes_on(drawn_weights: dict[str, Path], steps: Steps) -> None:
    prompt = long_prompt(drawn_weights["gemma3"], 600)
    expected = undisturbed(drawn_weights["gemma3"], prompt, GREEDY)
    answer = disturbed(drawn_weights["gemma3"], steps, [7, 9], prompt, GREEDY)
    assert answer.lengths == [604, 613]
    assert (answer.text, answer.finished) == expected


def everybody(
    path: Path,
    steps: Steps,
    after: int,
    prompts: list[str],
    keep_bytes: int = PLENTY,
    sampling: Sampling = GREEDY,
    **settings: Any,
) -> tuple[Driven, list[SuspendedSequence]]:
    """An engine that was suspended with all of ``prompts`` in it, and those who left."""
    driven = engine(path, **settings)
    steps.after(after, partial(driven.send, Stop(suspend=True, keep_bytes=keep_bytes)))
    for number, prompt in enumerate(prompts):
        driven.submit(number, prompt, sampling)
    return driven, driven.suspended()


@pytest.fixture
def tokens_of(monkeypatch: pytest.MonkeyPatch) -> dict[SequenceId, list[int]]:
    """The answer's tokens of each sequence that ends."""
    taken: dict[SequenceId, list[int]] = {}
    remove = Scheduler.remove

    def recording(scheduler: Scheduler, sequence: SequenceId) -> bool:
        for running in scheduler.running:
            if running.id == sequence:
                taken[sequence] = running.tokens[running.prompt_length :]
        return remove(scheduler, sequence)

    monkeypatch.setattr(Scheduler, "remove", recording)
    return taken


@pytest.mark.parametrize("max_seqs", [pytest.param(8, marks=pytest.mark.long), 3], ids=["all running", "some waiting"])
def test_of_many_sequences_no_token_is_lost_or_said_twice(
    path: Path, steps: Steps, tokens_of: dict[SequenceId, list[int]], max_seqs: int
) -> None:
    driven, states = everybody(path, steps, 10, PROMPTS, max_seqs=max_seqs)
    texts = [driven.texts]
    for after in (4, 25):
        driven = engine(path, max_seqs=max_seqs)
        steps.after(after, partial(driven.send, SUSPEND))
        driven.send(*map(Resume, states))
        states = driven.suspended()
        texts.append(driven.texts)
    driven = engine(path, max_seqs=max_seqs)
    driven.send(*map(Resume, states))
    usages = [driven.finished(number).usage for number in range(len(PROMPTS))]
    driven.stopped(Stop())
    texts.append(driven.texts)

    weights = Weights([path], on_progress=lambda _: True)
    model = Model(weights)
    for number, usage in enumerate(usages):
        sequence = SequenceId(number)
        said = "".join(part.get(sequence, "") for part in texts)
        pieces = b"".join(map(model.piece, tokens_of[sequence]))
        assert said == pieces.decode("utf-8", "ignore")
        assert usage == Usage(len(model.tokenize(PROMPTS[number], add_special=True)), 48, usage.cached_tokens)
        assert len(tokens_of[sequence]) == 48
    weights.free()


def test_a_state_that_is_restored_and_saved_again_is_the_same(path: Path) -> None:
    weights = Weights([path], on_progress=lambda _: True)
    model = Model(weights)
    first, second = (
        Context(model, ComputeSettings(threads=2), length=1024, slots=4, batch_tokens=512) for _ in range(2)
    )
    batch = Batch(512)
    for at in range(3):
        # Turn by turn, so that the cells of the slots lie between each other.
        end = 0
        for slot in (0, 1, 3):
            end = batch.fill(end, [100 * slot + token for token in range(60)], 60 * at, slot, outputs=1)
        assert first.decode(batch, end) == Context.DECODED
    for slot in (3, 0, 1):
        saved = first.save(slot)
        assert second.restore(slot, saved)
        assert np.array_equal(second.save(slot), saved)
    first.free()
    second.free()
    weights.free()


def test_a_state_that_llama_cpp_refuses_leaves_its_slot_empty(path: Path) -> None:
    weights = Weights([path], on_progress=lambda _: True)
    context = Context(Model(weights), ComputeSettings(threads=2), length=256, slots=2, batch_tokens=512)
    batch = Batch(512)
    empty = context.state_bytes(1)
    assert context.decode(batch, batch.fill(0, list(range(50, 90)), 0, 0, outputs=1)) == Context.DECODED
    state = context.save(0)
    for damaged in (state[:-1], np.append(state, state[:1]), np.zeros(99, np.uint8), state[:0]):
        assert not context.restore(1, damaged)
        assert context.state_bytes(1) == empty
    for slot in (-1, 2):
        with pytest.raises(ValueError, match="no slot"):
            context.restore(slot, state)
        with pytest.raises(ValueError, match="no slot"):
            context.save(slot)
    context.free()
    weights.free()


def test_a_sequence_that_waited_in_line_waits_again(smollm2: Path, steps: Steps) -> None:
    expected, usage = undisturbed(smollm2, PROMPTS[1], GREEDY)
    driven, states = everybody(smollm2, steps, 6, PROMPTS[:2], max_seqs=1)
    assert [(state.sequence, state.size_bytes > 0) for state in states] == [(0, True), (1, False)]
    assert driven.accepted == {0: 1, 1: 1}
    driven = engine(smollm2, max_seqs=1)
    driven.send(Resume(states[1]))
    assert driven.finished(1) == replace(usage, sequence=SequenceId(1))
    assert driven.texts[SequenceId(1)] == expected
    driven.stopped(Stop())


def test_no_more_kv_state_is_held_than_may_be_and_the_rest_is_computed_again(smollm2: Path, steps: Steps) -> None:
    _, all_held = everybody(smollm2, steps, 10, PROMPTS[:4])
    room = sum(state.size_bytes for state in all_held[:2])
    _, states = everybody(smollm2, steps, 10, PROMPTS[:4], room)
    assert [state.size_bytes > 0 for state in states] == [True, True, False, False]
    assert sum(state.size_bytes for state in states) <= room
    driven = engine(smollm2)
    driven.send(*(Resume(state.without_kv() if state.sequence == 1 else state) for state in states))
    for number in range(4):
        assert driven.finished(number).usage.completion_tokens == 48
    driven.stopped(Stop())


def test_a_state_that_cannot_be_restored_is_computed_again(smollm2: Path, steps: Steps) -> None:
    _, (state,) = everybody(smollm2, steps, 10, PROMPTS[:1])
    assert state.kept is not None
    driven = engine(smollm2)
    driven.send(Resume(replace(state, kept=replace(state.kept, kv=state.kept.kv[:-1]))))
    assert driven.finished().usage.completion_tokens == 48
    driven.stopped(Stop())


def test_more_state_than_there_is_room_for_is_computed_again(smollm2: Path, steps: Steps) -> None:
    """They shared the cells of their beginning; restored, each has its own."""
    prompt = long_prompt(smollm2, 300)
    driven = engine(smollm2, context_length=768)
    driven.submit(9, prompt, max_tokens=1)
    driven.finished(9)
    steps.after(12, partial(driven.send, SUSPEND))
    for number in range(4):
        driven.submit(number, Tokens((*prompt.ids, 400 + number)), max_tokens=30)
    states = driven.suspended()
    assert all(state.kept is not None and len(state.kept.tokens) > 300 for state in states)
    driven = engine(smollm2, context_length=768)
    driven.send(*map(Resume, states))
    for number in range(4):
        assert driven.finished(number).usage.completion_tokens == 30
    driven.stopped(Stop())


def test_what_was_restored_for_a_sequence_in_line_leaves_with_it(smollm2: Path, steps: Steps) -> None:
    """Suspended again before it ran: the stop is right behind it."""
    _, states = everybody(smollm2, steps, 10, PROMPTS[:3])
    driven = engine(smollm2)
    driven.send(*map(Resume, states), SUSPEND)
    again = driven.suspended()
    assert [state.size_bytes for state in again] == [state.size_bytes for state in states]


def test_a_dropped_sequence_frees_its_sampler(smollm2: Path, steps: Steps) -> None:
    driven, states = everybody(smollm2, steps, 5, PROMPTS[:2], sampling=Sampling(temperature=0.7, seed=1))
    free = [state.live.sampler._chain._free for state in states]
    gc.collect()
    assert all(finalizer.alive for finalizer in free), "the engine is gone, its sequences are not"
    del states[0]
    gc.collect()
    assert [finalizer.alive for finalizer in free] == [False, True]
    driven = engine(smollm2)
    driven.send(Resume(states.pop()))
    driven.finished(1)
    driven.stopped(Stop())
    assert not free[1].alive


def test_a_resumed_sequence_can_be_cancelled(smollm2: Path, steps: Steps) -> None:
    _, states = everybody(smollm2, steps, 5, PROMPTS[:2])
    driven = engine(smollm2, max_seqs=1)
    driven.send(*map(Resume, states), Cancel(SequenceId(1)), Cancel(FIRST))
    driven.until(lambda: len(driven.ended) == 2)
    usages = {number: Usage(prompt, 4, 0) for number, prompt in enumerate((5, 11))}
    assert driven.ended == {number: Cancelled(SequenceId(number), usage) for number, usage in usages.items()}
    assert driven.answer(PROMPTS[2], number=5)
    driven.stopped(Stop())


def test_sequences_leave_an_engine_that_fails_and_go_on_in_the_next(
    smollm2: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Greedy: the tokens so far are computed again in one step, whose logits differ in their last bits.
    expected = undisturbed(smollm2, PROMPTS[0], GREEDY)[0]
    _, states = everybody(smollm2, steps, 5, PROMPTS[:2], sampling=GREEDY)
    said = states[0].answer
    failing = engine(smollm2)
    decode, left = Context.decode, [7]

    def fail_after_some(context: Context, batch: Batch, length: int) -> int:
        left[0] -= 1
        return decode(context, batch, length) if left[0] > 0 else -3

    monkeypatch.setattr(Context, "decode", fail_after_some)
    failing.send(*map(Resume, states))
    failing.until(lambda: failing.over is not None)
    monkeypatch.undo()
    assert isinstance(failing.over, Died)
    assert failing.dying == frozenset(), "it says first that it fails"
    assert set(failing.active) == {0, 1}, "both were in the step that failed"
    again = [event.state for event in failing.ended.values() if isinstance(event, Suspended)]
    assert all(state.live is None and state.kept is None for state in again)
    assert len(again[0].answer) > len(said)
    last = engine(smollm2)
    last.send(*map(Resume, again))
    assert last.finished(0).usage.completion_tokens == 48
    weights = Weights([smollm2], on_progress=lambda _: True)
    model = Model(weights)
    text = b"".join(map(model.piece, said)).decode() + failing.texts[FIRST] + last.texts[FIRST]
    assert text == expected
    last.finished(1)
    last.stopped(Stop())
    weights.free()


def test_a_sequence_is_resumed_while_the_engine_still_loads(smollm2: Path, steps: Steps) -> None:
    _, (state,) = everybody(smollm2, steps, 5, PROMPTS[:1])
    driven = Driven(smollm2, starts=False)
    driven.send(Resume(state))
    driven.engine.start()
    assert driven.finished().usage.completion_tokens == 48
    driven.stopped(Stop())


@pytest.mark.parametrize("suspend", [True, False])
def test_a_load_that_is_given_up_hands_back_what_it_was_to_resume(smollm2: Path, steps: Steps, suspend: bool) -> None:
    _, states = everybody(smollm2, steps, 5, PROMPTS[:2])
    driven = Driven(smollm2, starts=False, pool=WeightsPool())
    driven.send(*map(Resume, states), Stop(suspend=suspend, keep_bytes=states[0].size_bytes))
    driven.engine.start()
    driven.stopped()
    if suspend:
        assert driven.ended == {0: Suspended(FIRST, states[0]), 1: Suspended(SequenceId(1), states[1].without_kv())}
    else:
        assert driven.ended == {number: Cancelled(SequenceId(number)) for number in (0, 1)}


def test_a_sequence_of_other_weights_is_refused(drawn_weights: dict[str, Path], steps: Steps) -> None:
    _, (state,) = everybody(drawn_weights["smollm2"], steps, 5, PROMPTS[:1])
    driven = engine(drawn_weights["gemma3"])
    driven.send(Resume(state))
    driven.until(lambda: FIRST in driven.ended)
    ended = driven.ended[FIRST]
    assert isinstance(ended, Failed)
    assert "changed while" in str(ended.error)
    driven.stopped(Stop())


def test_a_stop_that_does_not_suspend_cancels_as_ever(smollm2: Path, steps: Steps) -> None:
    driven = engine(smollm2, max_seqs=1)
    steps.after(5, partial(driven.send, Stop()))
    driven.submit(0, PROMPT)
    driven.submit(1, PROMPT)
    assert driven.stopped().kept is None
    assert driven.ended == {number: Cancelled(SequenceId(number)) for number in (0, 1)}
