"""A real engine under a test's control, without a yard."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import pytest

from modelyard.engine.chat.template_processes import TemplateProcesses
from modelyard.engine.engine import Engine
from modelyard.engine.hosts.process_engine import EngineProcesses
from modelyard.engine.llama import Batch, Context, Model, Weights
from modelyard.engine.loading.weights import WeightsKey, WeightsPool
from modelyard.engine.scheduling import step_budget
from modelyard.engine.scheduling.fair_share import Device
from modelyard.engine.settings import EngineSettings
from modelyard.protocol.events import (
    Accepted,
    Cancelled,
    Died,
    Dying,
    Event,
    Failed,
    Finished,
    Loaded,
    LoadFailed,
    ParkedWeightsLost,
    Returned,
    Stopped,
    Suspended,
    Token,
)
from modelyard.protocol.messages import Message
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.prompts import Prompt, Sampling, Text, Tokens
from modelyard.protocol.requests import Stop, Submit
from modelyard.protocol.suspended import SuspendedSequence
from modelyard.protocol.values import EngineStats, SequenceId, TokenLogprob
from modelyard.yard.runtime.interfaces import EngineHandle

_Kind = TypeVar("_Kind", bound=Event)

WAIT_S = 60.0
GREEDY = Sampling(temperature=0.0)

# Shared by all engines of a test run: to start a process takes as long as to load a small model.
TEMPLATES = TemplateProcesses()


class _KeptWeights(WeightsPool):
    """Weights that stay loaded until the tests end: of Gemma 3 alone the vocabulary takes a second to load."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: set[WeightsKey] = set()

    def acquire(self, key: WeightsKey, on_progress: Callable[[float], bool]) -> Weights:
        weights = super().acquire(key, on_progress)
        if key not in self._kept:
            self._kept.add(key)
            self.park([key])
        return weights


_KEPT = _KeptWeights()

WORDS = ["sea", "wind", "rope", "sail", "whale", "storm", "island", "harbour", "map", "star", "moon", "anchor", "ship"]


class Driven:
    """An engine that loads as soon as it is made. Its events are read by the methods that wait for something.

    Attributes:
        texts, logprobs: what each sequence has said here so far.
        accepted: of each sequence, how often.
        ended: the last event of each sequence that ended here.
        dying: the sequences that had ended when the engine said that it is dying; None before it did.
        active: the sequences that it was computing then.
        over: the engine's last event.
        lost: what was said of weights that it had parked.
        last: the event that was read last.
        stats: what it said last of itself.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str = "test",
        pool: WeightsPool | None = None,
        device: Device | None = None,
        starts: bool = True,
        processes: EngineProcesses | None = None,
        **settings: Any,
    ) -> None:
        self._events: SimpleQueue[Event] = SimpleQueue()
        self.texts: dict[SequenceId, str] = {}
        self.logprobs: dict[SequenceId, list[TokenLogprob]] = {}
        self.accepted: dict[SequenceId, int] = {}
        self.ended: dict[SequenceId, Event] = {}
        self.profile: ModelProfile | None = None
        self.dying: frozenset[SequenceId] | None = None
        self.active: tuple[SequenceId, ...] = ()
        self.over: Event | None = None
        self.lost: ParkedWeightsLost | None = None
        self.last: Event | None = None
        self.stats: EngineStats | None = None
        chosen = {"context_length": 2048, "max_seqs": 4, "prefix_slots": 4, "prompt_lookup": False} | settings
        told = EngineSettings(name, (path,), "", **chosen)
        if processes is not None:
            self.engine: EngineHandle = processes.engine(told, self._publish)
        else:
            self.engine = Engine(told, self._publish, pool or _KEPT, device, TEMPLATES)
        if starts:
            self.engine.start()

    def _publish(self, events: Sequence[Event]) -> None:
        for event in events:
            self._events.put(event)

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.engine.send(message)

    def submit(self, number: int, prompt: str | Prompt, sampling: Sampling = GREEDY, **request: Any) -> None:
        """Ask for 48 tokens, whatever they are, unless the request says otherwise."""
        prompt = Text(prompt) if isinstance(prompt, str) else prompt
        chosen = {"max_tokens": 48, "ignore_eos": True} | request
        self.send(Submit(SequenceId(number), prompt, sampling, **chosen))

    def until(self, is_reached: Callable[[], bool]) -> None:
        """Read events until something is reached."""
        while not is_reached():
            event = self._events.get(timeout=WAIT_S)
            assert not isinstance(event, LoadFailed), event
            self.last = event
            self._note(event)

    def _note(self, event: Event) -> None:
        match event:
            case Loaded(profile):
                self.profile = profile
            case EngineStats():
                self.stats = event
            case Token(sequence, text, logprobs):
                assert sequence not in self.ended
                self.texts[sequence] = self.texts.get(sequence, "") + text
                self.logprobs.setdefault(sequence, []).extend(logprobs)
            case Accepted(sequence):
                self.accepted[sequence] = self.accepted.get(sequence, 0) + 1
            case Finished() | Failed() | Cancelled() | Suspended() | Returned():
                assert event.sequence not in self.ended, "a sequence ended twice"
                self.ended[event.sequence] = event
            case Dying(_, active):
                self.dying, self.active = frozenset(self.ended), active
            case Stopped() | Died():
                self.over = event
            case ParkedWeightsLost():
                self.lost = event

    def next(self, kind: type[_Kind]) -> _Kind:
        """The next event of a kind."""
        self.last = None
        self.until(lambda: isinstance(self.last, kind))
        assert isinstance(self.last, kind)
        return self.last

    def loaded(self) -> ModelProfile:
        self.until(lambda: self.profile is not None)
        assert self.profile is not None
        return self.profile

    def finished(self, number: int = 0) -> Finished:
        """How a sequence ended, which is to be by itself."""
        sequence = SequenceId(number)
        self.until(lambda: sequence in self.ended)
        event = self.ended[sequence]
        assert isinstance(event, Finished), event
        return event

    def answer(self, prompt: str | Prompt, sampling: Sampling = GREEDY, *, number: int = 0, **request: Any) -> str:
        self.submit(number, prompt, sampling, **request)
        self.finished(number)
        return self.texts[SequenceId(number)]

    def stopped(self, stop: Stop | None = None) -> Stopped:
        """Tell it to stop, if something is to be told; how it stopped."""
        if stop is not None:
            self.send(stop)
        self.until(lambda: self.over is not None)
        assert self.engine.join(WAIT_S)
        assert isinstance(self.over, Stopped), self.over
        return self.over

    def suspended(self, stop: Stop | None = None) -> list[SuspendedSequence]:
        """As ``stopped``; the sequences that left, which are now the caller's alone."""
        self.stopped(stop)
        left = [event.state for event in self.ended.values() if isinstance(event, Suspended)]
        self.ended = {k: event for k, event in self.ended.items() if not isinstance(event, Suspended)}
        return left


class Steps:
    """Does something after so many steps of an engine, on its thread: what it sends is heard right after that step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._left = 0
        self._action: Callable[[], None] | None = None
        decode = Context.decode

        def counting(context: Context, batch: Batch, length: int) -> int:
            outcome = decode(context, batch, length)
            self._left -= 1
            if self._left == 0 and self._action is not None:
                self._action()
            return outcome

        monkeypatch.setattr(Context, "decode", counting)
        # How many steps a prompt takes is not to depend on the machine.
        monkeypatch.setattr(step_budget, "MAX_STEP_S", math.inf)

    def after(self, steps: int, action: Callable[[], None]) -> None:
        self._left, self._action = steps, action


def engine(path: Path, **settings: Any) -> Driven:
    """An engine that has loaded."""
    driven = Driven(path, **settings)
    driven.loaded()
    return driven


def long_prompt(path: Path, tokens: int) -> Tokens:
    """A list that goes round: its next line is so certain that it does not hang on llama.cpp's rounding.

    Restored cells lie closer together than those that were computed, and so are summed up in another order. That moves
    logits by up to 1.2, as it does where nothing was ever saved.
    """
    lines = "\n".join(f"Day {number % len(WORDS)}: {WORDS[number % len(WORDS)]}" for number in range(1, 300))
    weights = Weights([path], on_progress=lambda _: True)
    ids = Model(weights).tokenize(lines, add_special=True)[:tokens]
    weights.free()
    assert len(ids) == tokens
    return Tokens(tuple(ids))
