"""What the processes of the fuzzer do with an engine: its trial, and random requests to it.

A function here is called in a process of its own, see ``children``.
"""

from __future__ import annotations

import random
import resource
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, Final

from fuzz.nasty_texts import nasty_text
from modelyard.engine.engine import Engine
from modelyard.engine.hosts.trial_program import Failure, Trial
from modelyard.engine.hosts.trial_task import TrialTask
from modelyard.engine.loading.weights import WeightsPool
from modelyard.engine.scheduling.fair_share import Device
from modelyard.engine.settings import EngineSettings
from modelyard.errors import EngineError
from modelyard.protocol.events import (
    Cancelled,
    Died,
    Embedded,
    Event,
    Failed,
    Finished,
    Loaded,
    LoadFailed,
    Ranked,
    Returned,
    Stopped,
    Suspended,
    Tokenized,
)
from modelyard.protocol.messages import Restore, Resume
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.prompts import Chat, Prompt, Sampling, Text, Tokens
from modelyard.protocol.requests import Cancel, Embed, Rank, Stop, Submit, Tokenize
from modelyard.protocol.values import SequenceId

# The prediction is far below; what takes more is at fault.
MEMORY_BYTES: Final = 4 << 30
_ENDS: Final = (Finished, Embedded, Ranked, Tokenized, Cancelled, Suspended, Returned, Failed)
_MAX_TEXT_LENGTH: Final = 3000
_ROUNDS: Final = 3
_MAX_REQUESTS: Final = 6
_SHORT_CONTEXT: Final = 512

Report = Callable[[str], None]


class Broken(Exception):
    """The engine ended: a server would have lost this model, though not its process."""


def try_model(report: Report, task: TrialTask) -> str:
    """Why the model is refused; "" where it passes its trial."""
    report("trial")
    task.limits.apply()
    # The trial prints, for whoever waits for it; here that is the log.
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    try:
        Trial(task).run()
    except Failure as failure:
        return str(failure) or "?"
    return ""


def serve(report: Report, settings: EngineSettings, vocabulary_size: int, seed: int) -> dict[str, int]:
    """Have an engine of ``settings`` answer random requests, and leave and come back; how many ended how.

    Raises:
        Broken: it did not load, or died.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    return Session(report, settings, vocabulary_size, random.Random(seed)).run()


class Session:
    """Engines that serve one after the other."""

    def __init__(self, report: Report, settings: EngineSettings, vocabulary_size: int, rng: random.Random) -> None:
        self._report = report
        self._settings = settings
        self._vocabulary_size = vocabulary_size
        self._rng = rng
        self._pool, self._device = WeightsPool(), Device()
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._open: set[SequenceId] = set()
        self._suspended: list[Suspended] = []
        self._number = 0
        self._counts: Counter[str] = Counter()

    def run(self) -> dict[str, int]:
        """Serve some rounds."""
        parked: Stopped | None = None
        for turn in range(self._rng.randint(1, _ROUNDS)):
            engine, profile = self._start(turn)
            if parked is not None:
                if parked.parked is not None:
                    parked.parked.release()
                if parked.kept is not None and self._rng.random() < 0.8:
                    engine.send(Restore(parked.kept))
            for suspended in self._suspended:
                self._open.add(suspended.sequence)
                engine.send(Resume(suspended.state))
            self._suspended = []
            self._ask(engine, profile)
            parked = self._leave(engine, turn)
        return dict(self._counts)

    def _start(self, turn: int) -> tuple[Engine, ModelProfile]:
        self._report(f"load {turn}")
        engine = Engine(self._settings, self._publish, self._pool, self._device)
        engine.start()
        while not isinstance(event := self._next_event(), Loaded):
            pass
        return engine, event.profile

    def _ask(self, engine: Engine, profile: ModelProfile) -> None:
        for _ in range(self._rng.randint(1, 2)):
            for _ in range(self._rng.randint(1, _MAX_REQUESTS)):
                self._number += 1
                number = SequenceId(self._number)
                message = self._message(number, profile)
                self._report(shown(message))
                self._open.add(number)
                engine.send(message)
                if self._rng.random() < 0.1:
                    engine.send(Cancel(SequenceId(self._rng.randint(1, self._number))))
            if self._rng.random() < 0.6:
                while self._open:
                    self._note(self._next_event())

    def _leave(self, engine: Engine, turn: int) -> Stopped:
        # A few steps first, so that some sequences are in their middle.
        for _ in range(self._rng.randint(0, 10) if self._open else 0):
            if not self._open:
                break
            self._note(self._next_event())
        suspends = self._rng.random() < 0.7
        stop = Stop(suspends, self._rng.choice((0, 1 << 16, sys.maxsize)), self._rng.random() < 0.5)
        self._report(f"stop {turn}: {stop}")
        engine.send(stop)
        while not isinstance(event := self._next_event(), Stopped):
            self._note(event)
        engine.join(10.0)
        if self._open:
            raise Broken(f"{len(self._open)} requests have no end")
        return event

    def _note(self, event: Event) -> None:
        if not isinstance(event, _ENDS):
            return
        self._open.discard(event.sequence)
        if isinstance(event, Suspended):
            self._suspended.append(event)
        name = type(event).__name__.lower()
        if isinstance(event, Failed):
            name = "failed" if isinstance(event.error, EngineError) else "refused"
            if name == "failed":
                self._report(f"failed: {event.error}")
        self._counts[name] += 1

    def _next_event(self) -> Event:
        event = self._events.get()
        if isinstance(event, LoadFailed | Died):
            raise Broken(f"{type(event).__name__}: {event.reason}")
        return event

    def _publish(self, batch: Sequence[Event]) -> None:
        for event in batch:
            self._events.put(event)

    def _message(self, number: SequenceId, profile: ModelProfile) -> Submit | Embed | Rank | Tokenize:
        rng = self._rng
        if self._settings.kind == "rerank":
            documents = tuple(nasty_text(rng, 300) for _ in range(rng.randint(1, 4)))
            return Rank(number, nasty_text(rng, 100), documents, rng.choice((None, 1, 8, 64)))
        if self._settings.kind == "embedding":
            inputs = tuple(rng.choice((self._text, self._tokens))() for _ in range(rng.randint(1, 5)))
            return Embed(number, inputs, rng.randint(-1, 1), rng.random() < 0.7)
        prompt: Prompt = rng.choice((self._text, self._tokens, self._tokens, self._chat))()
        if rng.random() < 0.1 and isinstance(prompt, Chat | Text | Tokens):
            return Tokenize(number, prompt, rng.random() < 0.5, rng.random() < 0.5)
        return Submit(
            number,
            prompt,
            self._sampling(),
            max_tokens=rng.choice((1, 2, 5, 40, 40, self._unlimited)),
            stop=tuple(nasty_text(rng, 4) for _ in range(rng.choice((0, 0, 1, 3)))),
            ignore_eos=rng.random() < 0.7,
            priority=rng.randint(-2, 2),
            response_format=rng.choice((None,) * 8 + ({"type": "json_object"},)),
            logprobs=rng.choice((None, None, 0, 1, 20)),
            echoes=rng.random() < 0.1,
            prediction=nasty_text(rng, 200) if rng.random() < 0.1 else "",
        )

    @property
    def _unlimited(self) -> int | None:
        """As many as the context holds, where those are few."""
        length = self._settings.context_length
        return None if length is not None and length <= _SHORT_CONTEXT else 64

    def _text(self) -> Text:
        return Text(nasty_text(self._rng, _MAX_TEXT_LENGTH))

    def _chat(self) -> Chat:
        roles = ("user", "assistant", "system")
        count = self._rng.randint(1, 4)
        return Chat(
            tuple({"role": self._rng.choice(roles), "content": nasty_text(self._rng, 300)} for _ in range(count))
        )

    def _tokens(self) -> Tokens:
        rng = self._rng
        length = max(1, int(700 ** rng.random()))
        few = [rng.randrange(max(1, self._vocabulary_size)) for _ in range(rng.choice((1, 3, 1000)))]
        return Tokens(tuple(rng.choice(few) for _ in range(length)))

    def _sampling(self) -> Sampling:
        """A request: most say little of what ``modelyard.api`` lets them say."""
        rng = self._rng
        sampling = Sampling(temperature=rng.choice((0.0, 0.0, 1e-6, 0.7, 1.0, 100.0)))
        changes: dict[str, Any] = {
            "top_k": rng.choice((0, 1, 40, 2**31 - 1)),
            "top_p": rng.choice((1e-9, 0.5, 1.0)),
            "min_p": rng.choice((0.0, 0.1, 1.0)),
            "repetition_penalty": rng.choice((1e-6, 0.5, 1.0, 1.3, 100.0)),
            "presence_penalty": rng.choice((-2.0, 0.0, 2.0)),
            "frequency_penalty": rng.choice((-2.0, 0.0, 2.0)),
            "seed": rng.choice((0, -1, 2**63 - 1, -(2**63))),
            "logit_bias": {rng.randrange(max(1, self._vocabulary_size)): rng.choice((-100.0, 100.0, 0.5))},
            "penalty_window": rng.choice((-1, 0, 1, 64)),
            "dry_multiplier": rng.choice((0.0, 0.8, 100.0)),
        }
        chosen = {key: value for key, value in changes.items() if rng.random() < 0.2}
        return replace(sampling, **chosen)


def shown(message: object) -> str:
    """A message in a few words, for whoever asks what ended the process."""
    text = repr(message)
    return text if len(text) < 200 else f"{text[:150]}…{text[-40:]}"
