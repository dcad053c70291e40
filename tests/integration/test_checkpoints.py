"""A hybrid model reuses prefixes that end anywhere a checkpoint was made, and answers as if it had computed them."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from agent_trace import END, agent_trace, prompt_of
from prefix_oracle import most_reusable

from modelyard.protocol.events import Finished
from modelyard.protocol.messages import Restore, Resume
from modelyard.protocol.prompts import Tokens
from modelyard.protocol.requests import Stop
from modelyard.protocol.values import SequenceId
from support.engine_driver import Driven, Steps, engine
from support.hybrid import NARROW, write_hybrid

# Logits of cells that lie elsewhere differ in their last bits.
ROUNDING = 0.01
# The token that ends a turn.
IM_END = 2
KEEP = Stop(keep_bytes=2**40)


@pytest.fixture(scope="module")
def hybrid(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hybrid(tmp_path_factory.mktemp("hybrid") / "narrow.gguf", weights["smollm2"], NARROW)


def words(seed: int, length: int) -> tuple[int, ...]:
    chance = random.Random(seed)
    return tuple(chance.randrange(1000, 40_000) for _ in range(length))


def ask(driven: Driven, prompt: tuple[int, ...], number: int = 0, tokens: int = 12) -> tuple[int, list[float]]:
    """Tokens of the prompt that were reused, and the log-probabilities of the answer."""
    driven.answer(Tokens(prompt), number=number, max_tokens=tokens, logprobs=0)
    reused = driven.finished(number).usage.cached_tokens
    return reused, [each.logprob for each in driven.logprobs[SequenceId(number)]]


def computed(path: Path, prompt: tuple[int, ...]) -> list[float]:
    """The log-probabilities of the answer where nothing can be reused."""
    driven = engine(path)
    answer = ask(driven, prompt)[1]
    driven.stopped(Stop())
    return answer


SYSTEM, FIRST, SECOND = words(1, 100), words(2, 90), words(3, 90)


def test_what_is_reused_of_another_conversation_changes_no_answer(hybrid: Path) -> None:
    driven = engine(hybrid)
    conversations = [SYSTEM + FIRST, SYSTEM + SECOND, SYSTEM + words(4, 90), SYSTEM + FIRST]
    answers = [ask(driven, prompt, number) for number, prompt in enumerate(conversations)]
    # The second finds where the two part, and the third goes on from there.
    assert [reused for reused, _ in answers] == [0, 0, 100, 189]
    for prompt, (_, answer) in zip(conversations, answers, strict=True):
        assert answer == pytest.approx(computed(hybrid, prompt), abs=ROUNDING)
    driven.stopped(Stop())


def test_several_answers_of_one_prompt_compute_it_once(hybrid: Path) -> None:
    driven = engine(hybrid)
    for number in range(4):
        driven.submit(number, Tokens(SYSTEM + FIRST), max_tokens=8)
    ends = [driven.finished(number) for number in range(4)]
    assert sorted(end.usage.cached_tokens for end in ends) == [0, 189, 189, 189]
    assert len({driven.texts[SequenceId(number)] for number in range(4)}) == 1
    driven.stopped(Stop())


@pytest.mark.parametrize("how", ["memory", "disk"])
def test_checkpoints_outlive_an_unload(hybrid: Path, how: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"kv_keep": how, "kv_keep_bytes": 2**40, "kv_dir": tmp_path}
    driven = engine(hybrid, **settings)
    for number, rest in enumerate((FIRST, SECOND)):
        ask(driven, SYSTEM + rest, number)
    kept = driven.stopped(KEEP).kept
    again = engine(hybrid, **settings)
    if kept is not None:
        again.send(Restore(kept))
    third = SYSTEM + words(4, 90)
    assert ask(again, third) == (100, pytest.approx(computed(hybrid, third), abs=ROUNDING))
    again.stopped(Stop())


def test_a_suspended_answer_goes_on_and_its_prompt_is_still_found(
    hybrid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = engine(hybrid)
    expected = undisturbed.answer(Tokens(SYSTEM + FIRST))
    undisturbed.stopped(Stop())
    driven = engine(hybrid, kv_keep="memory", kv_keep_bytes=2**40)
    Steps(monkeypatch).after(12, partial(driven.send, Stop(suspend=True, keep_bytes=2**40)))
    driven.submit(0, Tokens(SYSTEM + FIRST))
    (state,) = driven.suspended()
    said, kept = driven.texts[SequenceId(0)], driven.stopped().kept
    again = engine(hybrid, kv_keep="memory", kv_keep_bytes=2**40)
    assert kept is not None
    again.send(Restore(kept), Resume(state))
    assert isinstance(again.finished(), Finished)
    assert said + again.texts[SequenceId(0)] == expected
    assert ask(again, SYSTEM + FIRST, 1)[0] == 189
    again.stopped(Stop())


def test_agents_reuse_nearly_all_that_could_be_reused(hybrid: Path) -> None:
    """The trace has a tenth of the words; answers are not those that the next prompts repeat."""
    requests = agent_trace(agents=1, scale=0.1)
    prompts = [tuple(IM_END if token == END else token for token in prompt_of(request)) for request in requests]
    driven = engine(hybrid, context_length=4096)
    reused = [ask(driven, prompt, number, tokens=1)[0] for number, prompt in enumerate(prompts)]
    driven.stopped(Stop())
    possible = most_reusable([(prompt, ()) for prompt in prompts], 4096)
    assert sum(reused) >= 0.95 * sum(possible)
