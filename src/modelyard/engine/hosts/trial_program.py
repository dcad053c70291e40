"""Serves a model once in a process of its own, to find out whether llama.cpp can compute it.

    python -m modelyard.engine.hosts.trial_program < SETTINGS

Standard input holds a pickled ``TrialTask``, and stays open as long as the parent waits for the outcome. Standard
output has a JSON object a line: ``{"step": ...}`` before each step, then ``{"failure": ...}`` or ``{"passed": true}``.
A process that ends without one of the last two died in the step that it reported last.

The engine is the one that serves. Its requests cover each way in which llama.cpp computes for it: a prompt of one
token, of several, and of more than a step; several sequences that decode together; and a sequence that is suspended
with its state and continues in another context. An embedding or ranking model gets inputs of such lengths.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import Any, Final

from modelyard.engine.engine import Engine
from modelyard.engine.hosts.trial_task import TrialTask
from modelyard.engine.llama import resolve_here
from modelyard.engine.llama.weight_check import find_broken_tensor
from modelyard.engine.loading.weights import WeightsPool
from modelyard.engine.scheduling.fair_share import Device
from modelyard.errors import EngineError, UnusableModel
from modelyard.protocol.events import (
    Died,
    Embedded,
    Event,
    Failed,
    Finished,
    HeldWeights,
    Loaded,
    LoadFailed,
    Ranked,
    Stopped,
    Suspended,
    Token,
    Tokenized,
)
from modelyard.protocol.messages import Message, Resume
from modelyard.protocol.prompts import Sampling, Text, Tokens
from modelyard.protocol.requests import Embed, Rank, Stop, Submit, Tokenize
from modelyard.protocol.values import SequenceId
from modelyard.system.reporting_process import end_with_parent, report

# Ordinary text in several scripts, with digits and punctuation.
SAMPLE: Final = "The 3 quick foxes, 12 of them, jump!\n\tВсё течёт. 日本語 αβγ 👋"
NICENESS: Final = 5
ANSWER_TOKENS: Final = 2
# Long enough for a Stop to arrive in the middle.
LONG_ANSWER_TOKENS: Final = 6
STREAMS: Final = 3

_GREEDY: Final = Sampling(temperature=0.0)


class Failure(Exception):
    """The model cannot be served; the message is the reason.

    Attributes:
        lacks_device_memory: whether a device could not allocate what the model needs there.
    """

    def __init__(self, reason: str, *, lacks_device_memory: bool = False) -> None:
        super().__init__(reason)
        self.lacks_device_memory = lacks_device_memory


class _NoTemplates:
    """Refuses all chat templates: they would take another process, and llama.cpp sees only the text that they write."""

    def ask(self, *_: object, **__: object) -> dict[str, Any]:
        """Return a fault, so that the model has no template."""
        return {"fault": "unusable", "why": "a trial takes none", "line": None}


class Trial:
    """Sends a few requests to engines on the same weights, one engine after the other."""

    def __init__(self, task: TrialTask) -> None:
        self._settings = task.settings
        self._vocabulary_size = task.vocabulary_size
        self._is_large = not task.repacks
        self._device = Device(cores=task.cores)
        self._pool = WeightsPool(are_repacked=task.repacks)
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._engine: Engine | None = None
        self._numbers = 0
        self._context_length = 0

    def run(self) -> None:
        """Run all steps.

        Raises:
            Failure: a step failed.
        """
        self._check_weights()
        self._start("loading")
        if self._settings.kind == "text":
            self._generate()
        else:
            self._pool_inputs()
        report(step="unloading")
        self._stop(Stop())

    def _check_weights(self) -> None:
        """Find weights that are not finite. This reads the files in order, which is the fastest way to cache them."""
        report(step="reading the weights")
        for path in self._settings.paths:
            try:
                broken = find_broken_tensor(path, self._device.cores)
            except UnusableModel as unreadable:
                raise Failure(str(unreadable)) from unreadable
            if broken is not None:
                raise Failure(
                    f"Its tensor '{broken}' holds numbers that are not finite (NaN or infinite): the file is damaged. "
                    "Download it again, or use another one."
                )

    def _generate(self) -> None:
        self._tokenize()
        if self._is_large:
            # Each step reads all weights, so the same cases are covered in a third of the steps.
            prompts = [self._tokens(length) for length in (1, STREAMS, self._long)]
            step = "prompts of one token, of several and of more than a step, and a state that is saved"
            self._suspend_and_resume(step, [self._submit(prompt, ANSWER_TOKENS + 1) for prompt in prompts])
            return
        self._answer("a prompt of one token", [self._submit(self._tokens(1))])
        self._answer("several sequences at once", [self._submit(self._tokens(2 + number)) for number in range(STREAMS)])
        self._answer("a prompt of more than a step", [self._submit(self._tokens(self._long))])
        prompt = self._submit(self._tokens(STREAMS), max_tokens=LONG_ANSWER_TOKENS)
        self._suspend_and_resume("a state that is saved and restored", [prompt])

    def _tokenize(self) -> None:
        report(step="the tokens of a text")
        number = self._next()
        self._send(Tokenize(number, Text(SAMPLE)))
        self._await_ends([number])

    def _pool_inputs(self) -> None:
        max_tokens = max(1, min(self._settings.batch_tokens, self._context_length) - 2)
        report(step="inputs of one token, of several, and as many as fit a step")
        requests: list[Embed | Rank]
        if self._settings.kind == "rerank":
            requests = [Rank(self._next(), SAMPLE[:8], ("a", SAMPLE), max_document_tokens=max_tokens)]
        else:
            tokens = (self._tokens(1), self._tokens(min(5, max_tokens)), self._tokens(max_tokens))
            requests = [Embed(self._next(), tokens), Embed(self._next(), (Text(SAMPLE),), truncates=True)]
        for request in requests:
            self._send(request)
        self._await_ends([request.sequence for request in requests])

    def _suspend_and_resume(self, step: str, requests: Sequence[Submit]) -> None:
        report(step=step)
        for request in requests:
            self._send(request)
        last = requests[-1].sequence
        self._wait(lambda event: isinstance(event, Token | Finished | Failed) and event.sequence == last)
        states = []
        self._send(Stop(suspend=True, keep_bytes=sys.maxsize, park=True))
        while not isinstance(event := self._next_event(), Stopped):
            if isinstance(event, Suspended):
                states.append(event.state)
        self._join()
        parked = event.parked
        self._start("a second context")
        _release(parked)
        report(step="a state that is restored")
        for state in states:
            self._send(Resume(state))
        self._await_ends([state.sequence for state in states])

    def _answer(self, step: str, requests: Sequence[Submit]) -> None:
        report(step=step)
        for request in requests:
            self._send(request)
        self._await_ends([request.sequence for request in requests])

    def _await_ends(self, sequences: Iterable[SequenceId]) -> None:
        """Wait for the ends of ``sequences``. A refused request does not fail the trial."""
        waiting = set(sequences)
        while waiting:
            event = self._next_event()
            if isinstance(event, Failed | Finished | Embedded | Ranked | Tokenized):
                waiting.discard(event.sequence)

    def _start(self, step: str) -> None:
        report(step=step)
        self._engine = Engine(self._settings, self._publish, self._pool, self._device, templates=_NoTemplates())
        self._engine.start()
        loaded = self._wait(lambda event: isinstance(event, Loaded))
        assert isinstance(loaded, Loaded)
        self._context_length = loaded.profile.context_length or 0

    def _stop(self, stop: Stop) -> None:
        self._send(stop)
        self._wait(lambda event: isinstance(event, Stopped))
        self._join()

    def _wait(self, matches: Callable[[Event], bool]) -> Event:
        while not matches(event := self._next_event()):
            pass
        return event

    def _next_event(self) -> Event:
        event = self._events.get()
        match event:
            case LoadFailed(reason, lacks_device_memory):
                raise Failure(reason, lacks_device_memory=lacks_device_memory)
            case Died(reason):
                raise Failure(reason)
            case Failed(_, EngineError()):
                raise Failure(_reason(event))
        return event

    def _join(self) -> None:
        assert self._engine is not None
        self._engine.join(10.0)

    def _send(self, message: Message) -> None:
        assert self._engine is not None
        self._engine.send(message)

    def _publish(self, batch: Sequence[Event]) -> None:
        for event in batch:
            self._events.put(event)

    def _submit(self, prompt: Tokens, max_tokens: int = ANSWER_TOKENS) -> Submit:
        # Logprobs make the engine read all logits.
        return Submit(self._next(), prompt, _GREEDY, max_tokens, ignore_eos=True, logprobs=1)

    def _next(self) -> SequenceId:
        self._numbers += 1
        return SequenceId(self._numbers)

    @property
    def _long(self) -> int:
        """Length of a prompt that takes two steps, as far as the context allows, in tokens."""
        two_steps = self._settings.batch_tokens + self._settings.batch_tokens // 4
        return max(1, min(two_steps, self._context_length - ANSWER_TOKENS - 1))

    def _tokens(self, length: int) -> Tokens:
        """Return a prompt of ``length`` tokens, spread over the vocabulary."""
        stride = max(1, self._vocabulary_size // (length + 1))
        return Tokens(tuple(stride * (number + 1) % max(1, self._vocabulary_size) for number in range(length)))


def _reason(failed: Failed) -> str:
    return failed.error.reason if isinstance(failed.error, EngineError) else str(failed.error)


def _release(parked: HeldWeights | None) -> None:
    if parked is not None:
        parked.release()


def main() -> int:
    """Run the trial that standard input describes, and return the exit status."""
    task: TrialTask = pickle.load(sys.stdin.buffer)
    end_with_parent()
    # Streams of other models use the same cores meanwhile.
    os.nice(NICENESS)
    task.limits.apply(bounds_memory=not _uses_devices(task))
    try:
        Trial(task).run()
    except Failure as failure:
        report(failure=str(failure), lacks_device_memory=failure.lacks_device_memory)
    else:
        report(passed=True)
    return 0


def _uses_devices(task: TrialTask) -> bool:
    try:
        return bool(resolve_here(task.settings.placement).devices)
    except UnusableModel:
        # The load by the engine reports what is wrong with it.
        return False


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Skip the cleanup, which could hang or crash on threads of llama.cpp or on memory that a broken file has damaged.
    os._exit(status)
