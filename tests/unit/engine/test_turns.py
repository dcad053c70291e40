"""Engines that share a device, as threads that a test holds by the hand."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import pytest

from modelyard.engine import turns as turns_module
from modelyard.engine.turns import LONGEST_WAIT_S, PATIENCE, Seat, Turns, order

WAIT_S = 20.0


class Engine:
    """A thread that computes steps of a length that it is told, as long as it is told."""

    def __init__(self, turns: Turns, seat: Seat, log: list[str], name: str) -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()
        self._turns, self._seat, self._log, self._name = turns, seat, log, name
        self.thread = threading.Thread(target=self._compute, daemon=True)
        self.thread.start()

    def _compute(self) -> None:
        with self._turns.turn(self._seat):
            self._log.append(self._name)
            self.entered.set()
            assert self.leave.wait(WAIT_S)

    def end(self) -> None:
        self.leave.set()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def served(*seats: tuple[str, Seat]) -> list[str]:
    """In which order ``seats`` get their turns when all of them wait for another to end its step."""
    turns, log = Turns(), list[str]()
    first = Engine(turns, Seat(), log, "first")
    assert first.entered.wait(WAIT_S)
    engines = []
    for name, taker in seats:
        had = taker.had
        engines.append(Engine(turns, taker, log, name))
        until(lambda: len(turns._waiting) == len(engines))
        taker.had = had
    for engine in engines:
        engine.leave.set()
    first.end()
    for engine in engines:
        engine.end()
    return log[1:]


def seat(*, had: float = 0.0, weight: float = 1.0, priority: int = 0) -> Seat:
    made = Seat(weight, priority)
    made.had = had
    return made


def test_one_computes_at_a_time() -> None:
    turns, log = Turns(), list[str]()
    first, second = (Engine(turns, Seat(), log, name) for name in "ab")
    assert first.entered.wait(WAIT_S)
    until(lambda: bool(turns._waiting))
    assert not second.entered.is_set()
    first.end()
    assert second.entered.wait(WAIT_S)
    second.end()
    assert log == ["a", "b"]


def test_who_had_less_goes_first() -> None:
    assert served(("much", seat(had=5.0)), ("little", seat(had=1.0)), ("more", seat(had=3.0))) == [
        "little",
        "more",
        "much",
    ]


def test_the_higher_priority_goes_first_whatever_it_had() -> None:
    assert served(("low", seat()), ("high", seat(had=9.0, priority=5))) == ["high", "low"]


def test_who_has_waited_too_long_goes_before_any_priority() -> None:
    waiting, urgent = seat(), seat(priority=5)
    waiting.since, urgent.since = 100.0, 100.0 + LONGEST_WAIT_S
    assert order(urgent, 100.5) < order(waiting, 100.5)
    assert order(waiting, 100.1 + LONGEST_WAIT_S) < order(urgent, 100.1 + LONGEST_WAIT_S)


def test_time_counts_by_weight_and_who_was_away_has_missed_it() -> None:
    turns, heavy, light, late = Turns(), Seat(weight=4.0), Seat(), Seat()
    for taker in (heavy, light):
        taker.had = 10.0
        began = time.monotonic()
        with turns.turn(taker):
            until(lambda: time.monotonic() - began > 0.02)  # noqa: B023
    assert 0 < 3 * (heavy.had - 10.0) < light.had - 10.0
    with turns.turn(late):
        pass
    assert late.had >= 10.0


def test_an_engine_that_hangs_holds_up_nobody_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "HANGING_S", 0.05)
    turns, log = Turns(), list[str]()
    hanging = Engine(turns, Seat(), log, "hanging")
    assert hanging.entered.wait(WAIT_S)
    other = Engine(turns, Seat(), log, "other")
    assert other.entered.wait(WAIT_S)
    hanging.end()
    # Its end takes nobody's turn.
    third = Engine(turns, Seat(), log, "third")
    until(lambda: bool(turns._waiting) or third.entered.is_set())
    other.end()
    assert third.entered.wait(WAIT_S)
    third.end()


def test_a_step_that_fails_gives_its_turn_back() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="llama"), turns.turn(Seat()):
        raise ValueError("llama")
    with turns.turn(Seat()):
        pass


def test_prompts_are_patient_as_long_as_the_steps_of_those_who_decode_now() -> None:
    turns, own, chat, bulk, idle = Turns(), Seat(), Seat(), Seat(), Seat()
    with turns.joined(own):
        assert turns.patience_s(own) == math.inf
        with turns.joined(chat), turns.joined(bulk), turns.joined(idle):
            assert turns.patience_s(own) == math.inf
            chat.decode_s = idle.decode_s = 0.01
            for busy in (chat, bulk):
                with turns.turn(busy):
                    pass
            assert turns.patience_s(own) == pytest.approx(0.01 * PATIENCE)
            own.weight = 2.0
            assert turns.patience_s(own) == pytest.approx(0.02 * PATIENCE)
            assert turns.patience_s(chat) == math.inf
        assert turns.patience_s(own) == math.inf
