"""What drafts cost a stream in time: at most 3 % of an answer of 100 tokens, on any sequence of luck."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, cycle, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.engine.kv.cache import KvCache
from modelyard.engine.kv.sequence import Sequence as TokenSequence
from modelyard.engine.scheduling.scheduler import Scheduler
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.engine.speculative.policy import MAX_LOSS, OVERDRAFT_STEPS, Acceptance
from modelyard.protocol.values import SequenceId

# How many draft tokens of a step hold, and whether the token behind them is certain.
Luck = tuple[int, bool]
ALL, NONE = 99, 0
UNCERTAIN, WRONG, RIGHT = (NONE, False), (NONE, True), (ALL, True)

# Seconds of a step of so many tokens: as measured on two cores, and where memory or arithmetic is all that counts.
MACHINES: dict[str, dict[int, float]] = {
    "two cores": {1: 11, 2: 15, 4: 20, 8: 33, 16: 56, 32: 117, 64: 177},
    "memory": {1: 100, 64: 105},
    "arithmetic": {tokens: 10 * tokens for tokens in (1, 2, 4, 8, 16, 32, 64)},
}


class Proposer:
    """Always has 31 tokens to propose, in which it trusts more than it should."""

    def __init__(self) -> None:
        self._acceptance = Acceptance(0.95)

    @property
    def share(self) -> float:
        return self._acceptance.share

    @property
    def kept(self) -> float:
        return self._acceptance.kept

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        self._acceptance.settle_back()
        return [7] * min(31, limit)

    def record_verified(self, proposed: int, accepted: int, *, kept: bool) -> None:
        self._acceptance.record(proposed, accepted, kept=kept)


class Play:
    """Streams that are computed together, some with drafts, in modelled time.

    Attributes:
        time: since the first token.
        plain: what the tokens of each stream would have taken without drafts.
        proposed: draft tokens verified.
    """

    def __init__(self, machine: str, streams: int = 1, guessing: int = 1) -> None:
        self._cost = StepCost()
        for tokens, seconds in MACHINES[machine].items():
            self._cost.observe(tokens, seconds)
        self._scheduler = Scheduler(
            KvCache(65_536, 40),
            max_running=streams,
            batch_tokens=512,
            prefill_beside_decode=64,
            can_trim=True,
            cost=self._cost,
        )
        self.sequences = [TokenSequence(SequenceId(number), number, [number]) for number in range(streams)]
        for sequence in self.sequences:
            self._scheduler.add(sequence)
        for chunk in self._scheduler.schedule():
            chunk.sequence.tokens.append(7)
        for sequence in self.sequences[:guessing]:
            sequence.proposer = Proposer()
        self.time, self.proposed = 0.0, 0
        self.base = self._cost.relative(streams)

    @property
    def plain(self) -> list[float]:
        return [(sequence.answer_length - 1) * self.base for sequence in self.sequences]

    def step(self, luck: Luck) -> None:
        chunks = self._scheduler.schedule()
        self._scheduler.cache.operations.clear()
        self.time += self._cost.relative(sum(len(chunk.tokens) for chunk in chunks))
        holds, is_certain = luck
        for chunk in chunks:
            drafted = chunk.outputs - 1
            accepted = min(holds, drafted)
            chunk.sequence.is_alone = bool(drafted) and not is_certain and len(chunks) == 1
            chunk.sequence.tokens += [7] * (accepted + (not chunk.sequence.is_alone))
            if drafted:
                self.proposed += drafted
                self._scheduler.drafts.settle(chunk, accepted)

    def check(self) -> None:
        """Check that no stream has lost more than it may."""
        for plain in self.plain:
            assert self.time <= plain + OVERDRAFT_STEPS * self.base + MAX_LOSS * plain + 1e-9
            if plain >= 100 * self.base:
                assert self.time <= plain / 0.97


ADVERSARIES: dict[str, Callable[[], Iterable[Luck]]] = {
    "right but uncertain": lambda: repeat(UNCERTAIN),
    "always wrong": lambda: repeat(WRONG),
    "alternating": lambda: cycle((RIGHT, WRONG)),
    "one right, then uncertain": lambda: cycle(((1, True), UNCERTAIN, UNCERTAIN)),
    "right for long, then never": lambda: chain(repeat(RIGHT, 40), repeat(WRONG)),
    "right for long, then uncertain": lambda: chain(repeat(RIGHT, 40), repeat(UNCERTAIN)),
    "never for long, then right, then never": lambda: chain(repeat(WRONG, 300), repeat(RIGHT, 20), repeat(WRONG)),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_no_stream_loses_by_guesses(machine: str, adversary: str) -> None:
    play, lucks = Play(machine), iter(ADVERSARIES[adversary]())
    for _ in range(600):
        play.step(next(lucks))
        play.check()


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("guessing", [1, 8])
@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_none_of_eight_streams_loses_by_its_own_guesses_or_those_of_others(
    machine: str, guessing: int, adversary: str
) -> None:
    play, lucks = Play(machine, 8, guessing), iter(ADVERSARIES[adversary]())
    for _ in range(150):
        play.step(next(lucks))
        play.check()


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(list(MACHINES)),
    st.sampled_from([(1, 1), (2, 1), (3, 2)]),
    st.lists(st.tuples(st.sampled_from([0, 1, 5, 99]), st.booleans()), min_size=1, max_size=60),
)
def test_no_luck_makes_a_stream_lose(machine: str, streams: tuple[int, int], lucks: list[Luck]) -> None:
    play = Play(machine, *streams)
    for luck, _ in zip(cycle(lucks), range(300), strict=False):
        play.step(luck)
        play.check()


@pytest.mark.parametrize(("machine", "speedup"), [("two cores", 2.0), ("memory", 20.0), ("arithmetic", 1.0)])
def test_a_stream_whose_guesses_hold_is_as_much_faster_as_the_machine_allows(machine: str, speedup: float) -> None:
    play = Play(machine)
    for _ in range(60):
        play.step(RIGHT)
    assert play.time <= play.plain[0] / speedup
    assert bool(play.proposed) == (speedup > 1)


@pytest.mark.parametrize(("machine", "speedup"), [("two cores", 1.2), ("memory", 3.0)])
def test_of_eight_streams_that_repeat_themselves_all_are_faster(machine: str, speedup: float) -> None:
    play = Play(machine, 8, 8)
    for _ in range(60):
        play.step(RIGHT)
    assert play.time <= min(play.plain) / speedup


def test_guesses_that_begin_to_hold_are_found_out() -> None:
    play = Play("two cores")
    for _ in range(500):
        play.step(UNCERTAIN)
    before, plain = play.time, play.plain[0]
    for _ in range(400):
        play.step(RIGHT)
    assert play.plain[0] - plain > 1.5 * (play.time - before)


def test_what_was_gained_long_ago_does_not_pay_for_guesses_that_fail_now() -> None:
    play = Play("two cores")
    for _ in range(300):
        play.step(RIGHT)
    before, plain = play.time, play.plain[0]
    for _ in range(100):
        play.step(UNCERTAIN)
    assert play.time - before < 1.2 * (play.plain[0] - plain)


def test_a_step_that_was_not_computed_costs_nothing() -> None:
    play = Play("two cores")
    sequence = play.sequences[0]
    chunks = play._scheduler.schedule()
    assert chunks[0].outputs > 1
    assert play._scheduler.undo(chunks) is False
    before = sequence.credit
    sequence.proposer = None
    play._scheduler.schedule()
    assert sequence.credit >= before
