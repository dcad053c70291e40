"""The prompts and answers that one loaded model computes."""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass

from support.costs.machine import Machine, SimulatedModel


@dataclass(slots=True)
class Job:
    """A request that an engine computes.

    Attributes:
        request: its number.
        prompt: tokens that are to be computed before the next token of the answer.
        answer: tokens of the answer that are left.
    """

    request: int
    prompt: int
    answer: float


class Engine:
    """Computes on one node: prompts one after the other, in half of the time while answers run, and answers together.

    Its time is work done, in seconds of a node.
    """

    def __init__(self, model: SimulatedModel, machine: Machine, at: float) -> None:
        self.model, self.machine = model, machine
        self._at = at
        self._prompts: deque[tuple[Job, float]] = deque()
        self._prompt_done_s = 0.0
        # Tokens that a sequence has that was there all the time, and those at which each of the others ends.
        self._token = 0.0
        self._answers: list[tuple[float, int, Job]] = []
        self._running = 0

    @property
    def is_busy(self) -> bool:
        """Whether it computes."""
        return bool(self._prompts or self._running)

    def add(self, job: Job) -> None:
        """Begin a request, at the time that it was advanced to."""
        if job.prompt:
            self._prompts.append((job, self.model.prefill_s(self.machine, job.prompt)))
        else:
            self._answer(job)

    def _answer(self, job: Job) -> None:
        heapq.heappush(self._answers, (self._token + job.answer, job.request, job))
        self._running += 1

    def take_all(self) -> list[Job]:
        """Suspend all requests; return them with what is left to compute of each."""
        jobs = [job for job, _ in self._prompts]
        for end, _, job in self._answers:
            job.answer = max(0.0, end - self._token)
            job.prompt = 0
            jobs.append(job)
        self._prompts.clear()
        self._answers.clear()
        self._prompt_done_s, self._running = 0.0, 0
        return jobs

    def _shares(self) -> tuple[float, float]:
        """Return the shares of its time that prompts and answers have."""
        if self._prompts and self._running:
            return 0.5, 0.5
        return (1.0, 0.0) if self._prompts else (0.0, 1.0)

    def next_at(self) -> float:
        """Return at which work done the next prompt or answer ends; infinite where it computes nothing."""
        for_prompts, for_answers = self._shares()
        at = math.inf
        if self._prompts:
            at = self._at + (self._prompts[0][1] - self._prompt_done_s) / for_prompts
        if self._running:
            step_s = self.model.step_s(self.machine, self._running)
            at = min(at, self._at + (self._answers[0][0] - self._token) * step_s / for_answers)
        return max(at, self._at)

    def advance(self, at: float) -> tuple[list[Job], list[Job]]:
        """Compute until work done is ``at``; return whose prompts have ended, and whose answers."""
        for_prompts, for_answers = self._shares()
        passed_s, self._at = at - self._at, at
        begun: list[Job] = []
        ended: list[Job] = []
        if self._running:
            step_s = self.model.step_s(self.machine, self._running)
            self._token += passed_s * for_answers / step_s
            while self._answers and self._answers[0][0] <= self._token + 1e-6:
                ended.append(heapq.heappop(self._answers)[2])
                self._running -= 1
        if self._prompts:
            self._prompt_done_s += passed_s * for_prompts
            if self._prompt_done_s >= self._prompts[0][1] - 1e-9:
                job, _ = self._prompts.popleft()
                self._prompt_done_s = 0.0
                begun.append(job)
                job.prompt = 0
                self._answer(job)
        return begun, ended
