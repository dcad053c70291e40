"""Engines without a model, for tests: like the real one to the outside, but a test decides what happens, and when.

    engines = ScriptedEngines(loads=False)                  # each load waits for the test
    controller = LifecycleController(Residency.of({"a": ModelPolicy("a", 8)}, BUDGET), engines)
    _, generation = controller.submit("a", prompt)
    engine = await asyncio.to_thread(engines.started, "a")
    engine.load()
    engine.say("Hello", " world")
    engine.finish()
    assert await generation.text() == "Hello world"

Under HTTP, engines that answer by themselves are enough:

    engines = ScriptedEngines(answer=lambda submit: ["Hello", " world"])
    yard = Yard(config, make_engine=engines.make_handle)

Every engine has a thread of its own, which alone publishes, as the real one's does. What the test tells an engine
(``load``, ``say``, ``die``, …) goes through the same queue as what the controller sends it: it happens in that order,
on that thread, and returns at once. ``heard`` and ``started`` block until something has happened, for a bounded time.
``engines.end()`` ends all threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue

from modelyard.engine.settings import EngineSettings
from modelyard.errors import ContextLengthExceeded, EngineError, ModelyardError
from modelyard.protocol.events import (
    Accepted,
    Cancelled,
    ContextResized,
    ContextWanted,
    Died,
    Dying,
    Event,
    Failed,
    FileWrittenOver,
    Finished,
    Loaded,
    LoadFailed,
    LoadProgress,
    ParkedWeightsLost,
    Publish,
    Returned,
    Stopped,
    Suspended,
    Token,
    Tokenized,
)
from modelyard.protocol.messages import Message, Restore, Resume
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.placement import Placement
from modelyard.protocol.prompts import Chat
from modelyard.protocol.requests import Cancel, Stop, Submit, Tokenize
from modelyard.protocol.values import FinishReason, OutputFormat, SequenceId, Usage
from modelyard.yard.memory.footprint import Choices, Footprint

MAX_WAIT_S = 20.0
# Longer than anybody waits, so that a test sees a hang as one without an end.
MAX_HANG_S = 3 * MAX_WAIT_S
PROMPT_TOKENS = 3
CONTEXT_LENGTH = 2048

# What every scripted model takes, and a budget that is no bound for a few of them.
MODEL_BYTES, CONTEXT_BYTES = 900_000, 100_000
SUSPENDED_BYTES = 1_000
BUDGET = 1_000_000_000

# The texts that a submitted sequence is answered with; a ModelyardError that it raises refuses the sequence.
Answer = Callable[[Submit], Iterable[str]]


def profile_of(name: str) -> ModelProfile:
    """What a scripted engine says of its model."""
    return ModelProfile(
        context_length=CONTEXT_LENGTH,
        quantization="Q4_0",
        size_bytes=MODEL_BYTES,
        fingerprint=f"fp_{name}",
        can_chat=True,
        weights_bytes=MODEL_BYTES,
        context_bytes=CONTEXT_BYTES,
    )


@dataclass(frozen=True)
class ScriptedSuspension:
    """What a scripted engine needs to go on with a sequence: how many texts it has said."""

    sequence: SequenceId
    texts: int
    size_bytes: int = SUSPENDED_BYTES

    def without_kv(self) -> ScriptedSuspension:
        """This suspension, holding nothing."""
        return replace(self, size_bytes=0)


@dataclass
class ScriptedWeights:
    """What a scripted engine leaves behind where it is to park."""

    releases: int = 0

    def release(self) -> None:
        """Given up; counted."""
        self.releases += 1


class ScriptedEngine:
    """One engine under a test's control; an EngineHandle.

    Args:
        name: of the model.
        publish: takes its events, on its thread.
        loads: whether the load succeeds by itself; else it waits for ``load`` or ``fail_load``.
        answer: what it answers every sequence with, at once; None: the test speaks for it.
        output_format: how its answers are parsed; None: they are plain text.
        profile: what it says of its model, by its name.
    """

    def __init__(
        self,
        name: str,
        publish: Publish,
        *,
        loads: bool = True,
        answer: Answer | None = None,
        output_format: OutputFormat | None = None,
        profile: Callable[[str], ModelProfile] = profile_of,
    ) -> None:
        self.name = name
        self._profile = profile
        self._output_format = output_format
        # Of an engine of a Yard.
        self.settings: EngineSettings | None = None
        self._publish = publish
        self._answer = answer
        self._inbox: SimpleQueue[Message | Callable[[], list[Event]]] = SimpleQueue()
        self._heard: list[Message] = []
        self._hearing = threading.Condition()
        self._awake = threading.Event()
        self._awake.set()
        self._texts: dict[SequenceId, int] = {}
        self.parked: ScriptedWeights | None = None
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name=f"scripted {name}", daemon=True)
        if loads:
            self.load()

    # What the controller does with it

    def start(self) -> None:
        self._thread.start()

    def send(self, message: Message) -> None:
        self._inbox.put(message)

    def join(self, timeout_s: float) -> bool:
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # What the test makes it do

    def progress(self, fraction: float) -> None:
        """A part of the weights is read."""
        self._inbox.put(lambda: [LoadProgress(fraction)])

    def load(self) -> None:
        """The load succeeds."""
        self._inbox.put(lambda: [LoadProgress(1.0), Loaded(self._profile(self.name))])

    def fail_load(self, reason: str, *, lacks_device_memory: bool = False) -> None:
        """The load fails; the thread ends."""
        self._inbox.put(lambda: self._end([LoadFailed(reason, lacks_device_memory)]))

    def want_context(self, needed: int, desired: int) -> None:
        """It could use a larger context."""
        self._inbox.put(lambda: [ContextWanted(needed, desired)])

    def resize(self, cells: int, failure: str = "") -> None:
        """Its context has another size, or did not get one."""
        self._inbox.put(lambda: [ContextResized(cells, failure)])

    def say(self, *texts: str, to: int | None = None, ids: tuple[int, ...] = (7,)) -> None:
        """Tokens of one sequence, or of all that run; one step, so published at once."""
        self._inbox.put(lambda: [event for sequence in self._chosen(to) for event in self._say(sequence, texts, ids)])

    def finish(self, to: int | None = None, reason: FinishReason = "stop") -> None:
        """One sequence, or all that run, are complete."""
        self._inbox.put(lambda: [self._finish(sequence, reason) for sequence in self._chosen(to)])

    def fail(self, error: ModelyardError, to: int | None = None) -> None:
        """One sequence, or all that run, cannot go on."""
        self._inbox.put(lambda: [Failed(self._remove(sequence), error) for sequence in self._chosen(to)])

    def die(self, reason: str, *, frees: bool = True) -> None:
        """It fails with all that run, frees its memory, and its thread ends. What is sent after this is never heard.

        Where not ``frees``, it holds its memory until ``wake``.
        """

        def die() -> list[Event]:
            error = EngineError(self.name, reason)
            # As the real one: not in one batch, so that others can look in between.
            self._publish([Dying(reason)])
            self._publish([Failed(sequence, error) for sequence in self._texts])
            self._awake.wait(MAX_HANG_S)
            return self._end([Died(reason)])

        if not frees:
            self._awake.clear()
        self._inbox.put(die)

    def crash(
        self, reason: str, *, active: Sequence[int] = (), returns: Sequence[int] = (), frees: bool = True
    ) -> None:
        """Its process ends; what it has goes on elsewhere.

        Sequences of ``returns`` leave as they came, all others with what was said of them. Where not ``frees``, the
        memory is held until ``wake``. What is sent after this is never heard.
        """

        def crash() -> list[Event]:
            left = [
                Suspended(sequence, ScriptedSuspension(sequence, texts, size_bytes=0))
                for sequence, texts in self._texts.items()
                if sequence not in returns
            ]
            returned = [Returned(SequenceId(sequence)) for sequence in returns]
            self._publish([Dying(reason, tuple(map(SequenceId, active))), *left, *returned])
            self._awake.wait(MAX_HANG_S)
            return self._end([Died(reason)])

        if not frees:
            self._awake.clear()
        self._inbox.put(crash)

    def crash_loading(self, reason: str) -> None:
        """Its process ends before it serves."""
        self._inbox.put(lambda: self._end([Died(reason)]))

    def lose_weights(self, reason: str) -> None:
        """The process that held its parked weights ends."""
        self._publish([ParkedWeightsLost(reason)])

    def write_over(self, file: str, *, at_once: bool = False) -> None:
        """Its file is written over; where its thread has ended, that is told ``at_once``."""
        told = [FileWrittenOver(file)]
        if at_once:
            self._publish(told)
        else:
            self._inbox.put(lambda: told)

    def hang(self) -> None:
        """It does nothing, also not what it is told, until ``wake``."""

        def sleep() -> list[Event]:
            self._awake.wait(MAX_HANG_S)
            return []

        self._awake.clear()
        self._inbox.put(sleep)

    def wake(self) -> None:
        """End a ``hang``, or a death that does not free."""
        self._awake.set()

    # What the test learns from it

    def heard(self, kind: type[Message], number: int = 1) -> list[Message]:
        """All messages of ``kind``, as soon as there are ``number`` of them. Blocks."""

        def so_far() -> list[Message]:
            return [message for message in self._heard if isinstance(message, kind)]

        with self._hearing:
            assert self._hearing.wait_for(lambda: len(so_far()) >= number, MAX_WAIT_S), self._heard
            return so_far()

    # Its thread

    def _run(self) -> None:
        while not self._is_over:
            item = self._inbox.get()
            events = item() if callable(item) else self._hear(item)
            if events:
                self._publish(events)

    def _hear(self, message: Message) -> list[Event]:
        with self._hearing:
            self._heard.append(message)
            self._hearing.notify_all()
        match message:
            case Submit(sequence):
                return self._submit(sequence, message)
            case Cancel(sequence):
                return [self._cancelled(sequence)] if sequence in self._texts else []
            case Resume(state):
                assert isinstance(state, ScriptedSuspension)
                self._texts[state.sequence] = state.texts
                return []
            case Tokenize(sequence, prompt):
                return [self._tokenized(sequence, prompt)]
            case Restore():
                return []
            case Stop(suspend, _, park):
                self.parked = ScriptedWeights() if park else None
                stopped = Stopped(parked=self.parked)
                if not suspend:
                    return self._end([*(Cancelled(sequence) for sequence in self._texts), stopped])
                states = [ScriptedSuspension(sequence, texts) for sequence, texts in self._texts.items()]
                return self._end([*(Suspended(state.sequence, state) for state in states), stopped])

    def _submit(self, sequence: SequenceId, submit: Submit) -> list[Event]:
        try:
            texts = None if self._answer is None else tuple(self._answer(submit))
        except ModelyardError as refused:
            return [Failed(sequence, refused)]
        self._texts[sequence] = 0
        accepted = Accepted(sequence, PROMPT_TOKENS, self._output_format)
        if texts is None:
            return [accepted]
        return [accepted, *self._say(sequence, texts), self._finish(sequence, "stop")]

    def _tokenized(self, sequence: SequenceId, prompt: object) -> Event:
        """A token a word of what is said in a chat, and one a tool that it offers."""
        assert isinstance(prompt, Chat)
        words = " ".join(str(message["content"]) for message in prompt.messages).split()
        words += [tool["function"]["name"] for tool in prompt.tools]
        if len(words) >= CONTEXT_LENGTH:
            return Failed(sequence, ContextLengthExceeded(CONTEXT_LENGTH, len(words)))
        return Tokenized(sequence, tuple(range(len(words))), tuple(word.encode() for word in words))

    def _chosen(self, to: int | None) -> list[SequenceId]:
        return [sequence for sequence in self._texts if to in (None, sequence)]

    def _say(self, sequence: SequenceId, texts: Sequence[str], ids: tuple[int, ...] = ()) -> list[Event]:
        self._texts[sequence] += len(texts)
        return [Token(sequence, text, ids=ids) for text in texts]

    def _finish(self, sequence: SequenceId, reason: FinishReason) -> Event:
        usage = Usage(PROMPT_TOKENS, self._texts.pop(sequence), cached_tokens=0)
        return Finished(sequence, reason, usage)

    def _cancelled(self, sequence: SequenceId) -> Event:
        return Cancelled(sequence, Usage(PROMPT_TOKENS, self._texts.pop(sequence), cached_tokens=0))

    def _remove(self, sequence: SequenceId) -> SequenceId:
        del self._texts[sequence]
        return sequence

    def _end(self, events: list[Event]) -> list[Event]:
        self._is_over = True
        return events


class ScriptedEngines:
    """Makes scripted engines, and finds them again. The arguments are those of each engine."""

    def __init__(
        self,
        *,
        loads: bool = True,
        answer: Answer | None = None,
        output_format: OutputFormat | None = None,
        profile: Callable[[str], ModelProfile] = profile_of,
    ) -> None:
        self.loads, self.answer, self.output_format, self.profile = loads, answer, output_format, profile
        self.read_ahead_of: list[str] = []
        self._made: list[ScriptedEngine] = []
        self._making = threading.Condition()

    async def size(self, model: str) -> Choices:
        """For a LifecycleController."""
        return (Footprint(model, MODEL_BYTES, CONTEXT_BYTES),)

    async def make(self, model: str, publish: Publish, _placement: Placement, _cells: int = 0) -> ScriptedEngine:
        """For a LifecycleController."""
        return self._make(model, publish)

    def read_ahead(self, model: str) -> None:
        """For a LifecycleController."""
        self.read_ahead_of.append(model)

    def make_handle(self, settings: EngineSettings, publish: Publish) -> ScriptedEngine:
        """For a Yard."""
        return self._make(settings.name, publish, settings)

    def of(self, model: str) -> list[ScriptedEngine]:
        """All engines that were made for ``model``: one a load."""
        with self._making:
            return [engine for engine in self._made if engine.name == model]

    def started(self, model: str, number: int = 1) -> ScriptedEngine:
        """The engine of the ``number``-th load of ``model``, as soon as it is made. Blocks."""
        with self._making:
            is_made = self._making.wait_for(lambda: len(self.of(model)) >= number, MAX_WAIT_S)
            assert is_made, f"{model} was loaded {len(self.of(model))} times, not {number}"
            return self.of(model)[number - 1]

    def end(self) -> bool:
        """End all threads; whether they have ended."""
        for engine in self._made:
            engine.wake()
            engine.send(Stop())
        return all(engine.join(MAX_WAIT_S) for engine in self._made)

    def _make(self, name: str, publish: Publish, settings: EngineSettings | None = None) -> ScriptedEngine:
        engine = ScriptedEngine(
            name,
            publish,
            loads=self.loads,
            answer=self.answer,
            output_format=self.output_format,
            profile=self.profile,
        )
        engine.settings = settings
        with self._making:
            self._made.append(engine)
            self._making.notify_all()
        return engine
