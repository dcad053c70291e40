"""Those who use the server that is attacked, in a process of their own, which the attacker's work does not slow."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from attacks.watch import Watch
from faults.bystanders import Bystander

START_S = 120.0


@dataclass(frozen=True)
class Noticed:
    """What they noticed since they were asked last.

    Attributes:
        health_s: the slowest answer of ``/health``.
        pause_s: the longest pause of a stream.
        bytes: memory of the server's process, at the most.
        problems: answers that failed, and streams that broke off.
    """

    health_s: float
    pause_s: float
    bytes: int
    problems: tuple[str, ...]


class Others:
    """Asks them. What is noticed is counted from the last question on."""

    def __init__(self, asked: Connection) -> None:
        self._asked = asked

    def noticed(self) -> Noticed:
        """What they noticed since the last question."""
        self._asked.send(None)
        noticed: Noticed = self._asked.recv()
        return noticed


@contextmanager
def others(url: str, pid: int, models: Sequence[str]) -> Iterator[Others]:
    """A client that streams of each of ``models``, and one that asks for the health, for the length of the context."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_use, args=(theirs, url, pid, models), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(START_S):
            raise TimeoutError("The other clients have no streams.")
        ours.recv()
        yield Others(ours)
    finally:
        ours.close()
        process.join(START_S)


def _use(asked: Connection, url: str, pid: int, models: Sequence[str]) -> None:
    with ExitStack() as stack:
        bystanders = [stack.enter_context(Bystander(url, model)) for model in models]
        watch = stack.enter_context(Watch(url, pid))
        asked.send(None)
        while True:
            try:
                asked.recv()
            except EOFError:
                return
            asked.send(_noticed(watch, bystanders))
            watch.begin()
            for bystander in bystanders:
                bystander.begin()


def _noticed(watch: Watch, bystanders: Sequence[Bystander]) -> Noticed:
    broken = [problem for bystander in bystanders for problem in bystander.problems]
    pause_s = max((bystander.longest_gap_s for bystander in bystanders), default=0.0)
    return Noticed(watch.slowest_s, pause_s, watch.most_bytes, (*watch.failures[:3], *broken))
