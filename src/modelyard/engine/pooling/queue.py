"""Packs the next batch to embed: inputs of all waiting requests share batches. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelyard.protocol.values import SequenceId


@dataclass(slots=True, eq=False)
class Job:
    """One request in progress.

    Attributes:
        inputs: token ids of each input.
        vectors: [inputs, dimensions], of which the first ``done`` are filled in.
        taken: number of inputs that were taken into a batch.
        alone: whether its batches hold no inputs of other requests.
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
        """Number of tokens of all inputs."""
        return sum(map(len, self.inputs))


@dataclass(frozen=True, slots=True)
class BatchedInput:
    """An input in a batch."""

    job: Job
    index: int

    @property
    def tokens(self) -> Sequence[int]:
        """The token ids of the input."""
        return self.job.inputs[self.index]


class EmbedQueue:
    """Queue of requests.

    Args:
        batch_tokens: limit of tokens in a batch; a longer input has a batch of its own.
        slots: limit of inputs in a batch.
    """

    def __init__(self, batch_tokens: int, slots: int) -> None:
        self._batch_tokens = batch_tokens
        self._slots = slots
        self._jobs: list[Job] = []

    def __bool__(self) -> bool:
        return bool(self._jobs)

    @property
    def requests(self) -> list[SequenceId]:
        """The requests in the queue."""
        return [job.request for job in self._jobs]

    def add(self, job: Job) -> None:
        """Queue a request behind all others."""
        self._jobs.append(job)

    def remove(self, request: SequenceId) -> bool:
        """Remove a request; whether it was in the queue."""
        left = [job for job in self._jobs if job.request != request]
        was_there = len(left) < len(self._jobs)
        self._jobs = left
        return was_there

    def pack(self) -> list[BatchedInput]:
        """Take the next batch: one input of each request in turn, by priority, while there is room.

        An input without room is first in the next batch, and requests that had a place go behind those that had none:
        no request waits for all inputs of a long one.
        """
        batch: list[BatchedInput] = []
        room = self._batch_tokens
        alone = [job for job in self._jobs if job.alone]
        queue = alone[:1] or sorted(self._jobs, key=lambda job: -job.priority)
        is_taking = True
        while is_taking:
            is_taking = False
            for job in queue:
                if job.taken == len(job.inputs) or len(batch) == self._slots:
                    continue
                size = len(job.inputs[job.taken])
                if size <= room or not batch:
                    batch.append(BatchedInput(job, job.taken))
                    job.taken += 1
                    room -= size
                    is_taking = True
        served = {entry.job.request for entry in batch}
        self._jobs = [job for job in self._jobs if job.request not in served] + [
            job for job in self._jobs if job.request in served
        ]
        return batch

    def complete(self, batch: Sequence[BatchedInput], vectors: npt.NDArray[np.float32]) -> list[Job]:
        """Store the vectors of a batch; remove and return the requests that it completes."""
        for entry, vector in zip(batch, vectors, strict=True):
            entry.job.vectors[entry.index] = vector
            entry.job.done += 1
        complete = [job for job in self._jobs if job.done == len(job.inputs)]
        self._jobs = [job for job in self._jobs if job.done < len(job.inputs)]
        return complete
