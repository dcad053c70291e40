"""Finds by trying with how many threads an engine decodes fastest beside other programs.

Another program that computes on one of the cores stops all threads at every barrier for as long as it has that core, so
that a thread less is faster. This shows in steps that take much longer than the fastest of them. Only then is another
number tried, steps with one and with the other in turn: rounding depends on the number of threads, so that it should
not change without need.

Pure: the caller measures the time. Hot path: both methods run once a step, and nearly always compare two numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

# Steps of more tokens are bound by arithmetic, for which each core counts.
MAX_TOKENS: Final = 8

# Mean time of a step, as a multiple of the fastest of the last ones, from which on others seem to take the cores.
DISTURBED: Final = 1.6

# Steps of which the fastest is taken: at least so many, and at most twice as many.
WINDOW_STEPS: Final = 128

# Steps before which the mean is not used: the first ones of an answer take longer.
MIN_STEPS: Final = 48

# Part that a step has in the mean.
_MEAN_PART: Final = 1 / 16

# Seconds until the next trial, and the most to which it grows while trials show nothing better, unless they take more
# than this part of the time.
FIRST_INTERVAL_S: Final = 2.0
MAX_INTERVAL_S: Final = 16.0
MAX_LOSS: Final = 0.01

# Steps that are computed with one number of threads before the other one's turn, and turns of each. The first step of a
# turn does not count: threads start or end in it.
TURN_STEPS: Final = 4
TURNS: Final = 3

# Part of the present time of a step that another number of threads must not exceed to be taken.
BETTER: Final = 0.92

# The larger of the changes that are tried, as a part of the cores; the smaller one is a thread.
_LARGE_PART: Final = 4


@dataclass(slots=True)
class _Trial:
    """Steps with the present number of threads (even turns) and with another one (odd turns).

    Attributes:
        spared: threads that the other number leaves out.
        allowed, tokens: of the steps, which must not change meanwhile.
        steps: that were computed.
        seconds: of the steps that count, of the present and of the other number.
    """

    spared: int
    allowed: int
    tokens: int
    steps: int = 0
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])

    @property
    def turn(self) -> int:
        """Whose turn it is: 0 for the present number, 1 for the other one."""
        return self.steps // TURN_STEPS % 2


class ThreadTuner:
    """Chooses the number of threads of the steps of one engine."""

    def __init__(self) -> None:
        self._spared = 0
        # Changes that did not help; the next trial tries the next one.
        self._changes_tried = 0
        self._interval_s = FIRST_INTERVAL_S
        self._since_trial_s = 0.0
        self._trial: _Trial | None = None
        self._is_watching = False
        # Of steps of so many tokens on so many cores: the mean, and the fastest of this window and of the one before.
        self._kind = 0, 0
        self._mean_s = 0.0
        self._fastest_s = self._fastest_before_s = math.inf
        self._steps = 0

    def threads(self, allowed: int, tokens: int) -> int:
        """Return with how many threads the next step is computed, from 1 to ``allowed``.

        Args:
            allowed: cores that the engine may use.
            tokens: of the step.
        """
        self._is_watching = allowed > 1 and tokens <= MAX_TOKENS
        if not self._is_watching:
            return allowed
        if self._kind != (allowed, tokens):
            self._kind, self._mean_s, self._steps = (allowed, tokens), 0.0, 0
            self._fastest_s = self._fastest_before_s = math.inf
        trial = self._trial
        if trial is None and self._since_trial_s >= self._interval_s and (self._spared or self._is_disturbed):
            trial = self._trial = self._begin(allowed, tokens)
        if trial is not None and (trial.allowed != allowed or trial.tokens != tokens):
            trial = self._trial = None
        spared = self._spared if trial is None or not trial.turn else trial.spared
        return max(1, allowed - spared)

    def observe(self, took_s: float) -> None:
        """Note how long the step took for which ``threads`` was called last."""
        if not self._is_watching:
            return
        self._since_trial_s += took_s
        if (trial := self._trial) is None:
            self._mean_s += (took_s - self._mean_s) * (_MEAN_PART if self._steps else 1.0)
            self._fastest_s = min(self._fastest_s, took_s)
            self._steps += 1
            if self._steps % WINDOW_STEPS == 0:
                self._fastest_before_s, self._fastest_s = self._fastest_s, math.inf
            return
        if trial.steps % TURN_STEPS:
            trial.seconds[trial.turn] += took_s
        trial.steps += 1
        if trial.steps == 2 * TURNS * TURN_STEPS:
            self._end(trial)

    @property
    def _is_disturbed(self) -> bool:
        is_known = self._steps >= MIN_STEPS
        return is_known and self._mean_s > DISTURBED * min(self._fastest_s, self._fastest_before_s)

    def _begin(self, allowed: int, tokens: int) -> _Trial | None:
        self._spared = min(self._spared, allowed - 1)
        large = max(1, allowed // _LARGE_PART)
        changes = (large, -large, 1, -1)
        for _ in changes:
            other = min(max(self._spared + changes[self._changes_tried % len(changes)], 0), allowed - 1)
            if other != self._spared:
                return _Trial(other, allowed, tokens)
            self._changes_tried += 1
        return None

    def _end(self, trial: _Trial) -> None:
        present, other = trial.seconds
        self._trial, self._since_trial_s = None, 0.0
        if other <= BETTER * present:
            self._spared, self._interval_s = trial.spared, FIRST_INTERVAL_S
        else:
            self._changes_tried += 1
            self._interval_s = max(min(2 * self._interval_s, MAX_INTERVAL_S), (other - present) / MAX_LOSS)
