"""Each request for the tokens of a text has one end, also where it is being answered when that comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

import pytest

from modelyard.engine.input.reading_pool import ReadingPool
from modelyard.engine.input.tokenize_worker import TokenizeWorker
from modelyard.engine.scheduling.engine_table import EngineTable
from modelyard.protocol.events import Cancelled, Event, Returned, Tokenized
from modelyard.protocol.prompts import Text, Tokens
from modelyard.protocol.requests import Stop, Tokenize
from modelyard.protocol.values import SequenceId

WAIT_S = 30
RECORD = EngineTable().claim("small")
FIRST, SECOND = SequenceId(1), SequenceId(2)


class SlowModel:
    """Tokenises when it is told to."""

    vocab_size = 10

    def __init__(self) -> None:
        self.has_begun, self.go_on = threading.Event(), threading.Event()

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        self.has_begun.set()
        assert self.go_on.wait(WAIT_S)
        return [len(text)]

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        return [b"x" for _ in tokens]


@pytest.fixture
def model() -> Iterator[SlowModel]:
    model = SlowModel()
    yield model
    model.go_on.set()


@pytest.fixture
def events() -> SimpleQueue[Event]:
    return SimpleQueue()


@pytest.fixture
def readers(model: SlowModel) -> Iterator[ReadingPool]:
    readers = ReadingPool("small", RECORD)
    yield readers
    model.go_on.set()
    readers.close()


@pytest.fixture
def worker(model: SlowModel, events: SimpleQueue[Event], readers: ReadingPool) -> TokenizeWorker:
    def publish(batch: Sequence[Event]) -> None:
        for event in batch:
            events.put(event)

    return TokenizeWorker("small", model, publish, readers, RECORD, lambda _: None)


def ask(worker: TokenizeWorker, model: SlowModel) -> None:
    worker.submit(Tokenize(FIRST, Text("abc")))
    assert model.has_begun.wait(WAIT_S)


def test_a_slow_text_does_not_hold_up_another_request(
    worker: TokenizeWorker, model: SlowModel, events: SimpleQueue[Event]
) -> None:
    ask(worker, model)
    worker.submit(Tokenize(SECOND, Tokens((7,))))
    assert events.get(timeout=WAIT_S) == Tokenized(SECOND, (7,), (b"x",))
    model.go_on.set()
    assert events.get(timeout=WAIT_S) == Tokenized(FIRST, (3,), (b"x",))


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda worker: worker.cancel(FIRST), Cancelled),
        (lambda worker: worker.shutdown(Stop()), Cancelled),
        (lambda worker: worker.shutdown(Stop(suspend=True)), Returned),
    ],
)
def test_a_request_ends_at_once_and_only_once(
    worker: TokenizeWorker,
    model: SlowModel,
    events: SimpleQueue[Event],
    readers: ReadingPool,
    end: Callable[[TokenizeWorker], None],
    expected: type[Event],
) -> None:
    ask(worker, model)
    end(worker)
    # Before the tokenizer comes back.
    assert isinstance(events.get(timeout=WAIT_S), expected)
    model.go_on.set()
    readers.close()
    worker.cancel(FIRST)
    assert events.empty()
