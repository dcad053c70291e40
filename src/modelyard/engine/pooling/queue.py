"""What is to be embedded next: inputs of all waiting requests share batches. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelyard.protocol.values import SequenceId


@dataclass(slots=True, eq=False)
class Job:
    """One request on its way.

    Attributes:
        inputs: token ids of each.
        vectors: [inputs, dimensions], those of the first ``done`` of them filled in.
        taken: inputs that were taken into a batch.
        alone: nothing of others is in its batches.
    """

    request: SequenceId
    inputs: Sequence[Sequence[int]]
    priority: int
    vectors: npt.NDArray[np.float32]
    taken: int = 0
    done: int = 0
    alone: bool = False

    @property
    def tokens(self) -> int:
        """Of all inputs."""
        return sum(map(len, self.inputs))


@dataclass(frozen=True, slots=True)
class Place:
    """An input in a batch."""

    job: Job
    index: int

    @property
    def tokens(self) -> Sequence[int]:
        """Its ids."""
        return self.job.inputs[self.index]


class EmbedQueue:
    """Requests in line.

    Args:
        batch_tokens: that a batch holds; an input that is longer goes alone.
        slots: inputs that a batch holds.
    """

    def __init__(self, batch_tokens: int, slots: int) -> None:
        self._batch_tokens = batch_tokens
        self._slots = slots
        self._jobs: list[Job] = []

    def __bool__(self) -> bool:
        return bool(self._jobs)

    @property
    def requests(self) -> list[SequenceId]:
        """All that are in line."""
        return [job.request for job in self._jobs]

    def add(self, job: Job) -> None:
        """Put a request in line, behind those that are there."""
        self._jobs.append(job)

    def remove(self, request: SequenceId) -> bool:
        """Take a request out; whether it was there."""
        left = [job for job in self._jobs if job.request != request]
        was_there = len(left) < len(self._jobs)
        self._jobs = left
        return was_there

    def pack(self) -> list[Place]:
        """Take the next batch: one input of each request in turn, the urgent first, while there is room.

        What had no room is first in the next batch, and those that had a place go behind those that had none: no
        request waits for all inputs of a long one.
        """
        batch: list[Place] = []
        room = self._batch_tokens
        alone = [job for job in self._jobs if job.alone]
        line = alone[:1] or sorted(self._jobs, key=lambda job: -job.priority)
        is_taking = True
        while is_taking:
            is_taking = False
            for job in line:
                if job.taken == len(job.inputs) or len(batch) == self._slots:
                    continue
                size = len(job.inputs[job.taken])
                if size <= room or not batch:
                    batch.append(Place(job, job.taken))
                    job.taken += 1
                    room -= size
                    is_taking = True
        served = {place.job.request for place in batch}
        self._jobs = [job for job in self._jobs if job.request not in served] + [
            job for job in self._jobs if job.request in served
        ]
        return batch

    def complete(self, batch: Sequence[Place], vectors: npt.NDArray[np.float32]) -> list[Job]:
        """Put the vectors of a batch where they belong; the requests that are complete by that leave the line."""
        for place, vector in zip(batch, vectors, strict=True):
            place.job.vectors[place.index] = vector
            place.job.done += 1
        complete = [job for job in self._jobs if job.done == len(job.inputs)]
        self._jobs = [job for job in self._jobs if job.done < len(job.inputs)]
        return complete
