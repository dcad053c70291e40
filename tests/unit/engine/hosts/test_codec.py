"""What engines are sent and say comes out of a connection as it went in, and nothing else does."""

from __future__ import annotations

import gc
import os
import pickle
import socket
import threading
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from modelyard.engine.hosts.channel import Channel, ChannelClosed
from modelyard.engine.hosts.codec import MIN_SHARED_BYTES, ForeignValue, decode, encode
from modelyard.engine.hosts.protocol import FromEngine, LogLine, StartEngine, ToEngine
from modelyard.engine.settings import EngineSettings
from modelyard.errors import ContextLengthExceeded, EngineError, InvalidRequest, ModelyardError, TakesNoImages
from modelyard.protocol.events import Accepted, Embedded, Failed, Finished, Loaded, Suspended, Token
from modelyard.protocol.kv_snapshot import KeptPrefixes, KeptPrompt
from modelyard.protocol.messages import Resume
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.prompts import Audio, Chat, Image, NamedTool, Sampling, Text, Tokens, Written, salted
from modelyard.protocol.requests import Cancel, Stop, Submit
from modelyard.protocol.suspended import SuspendedSequence
from modelyard.protocol.values import EngineStats, OutputFormat, SequenceId, TokenLogprob, Usage
from modelyard.system.file_stamp import FileStamp
from modelyard.system.shared_memory import SharedArray

ONE = SequenceId(1)
FILE = FileStamp(Path("/a.gguf"), 1, 2, 3, 4)
LARGE = np.arange(MIN_SHARED_BYTES, dtype=np.uint8)
CHAT = Chat(
    ({"role": "user", "content": ("What is this?", Image(1, 1, b"rgb"), Audio(b"\0" * 8, 16000))},),
    ({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},),
    NamedTool("f"),
    options={"enable_thinking": False},
)


T = TypeVar("T")


def there_and_back(value: T) -> T:
    data, blocks = encode(value)
    return decode(data, blocks)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "value",
    [
        StartEngine(1, EngineSettings("m", (FILE.path,), "Q4_0", projector=Path("b.gguf"), files=(FILE,))),
        ToEngine(1, Submit(ONE, CHAT, Sampling(seed=1, logit_bias={1: 2.0}), stop=("a",), grammar={"type": "regex"})),
        ToEngine(1, Submit(ONE, Tokens((1, 2)))),
        ToEngine(1, Cancel(ONE)),
        ToEngine(1, Stop(suspend=True, keep_bytes=1 << 40)),
        ToEngine(1, Resume(SuspendedSequence("i", Submit(ONE, Text("a")), (1, -(1 << 180)), (3,), None, 2))),
        FromEngine(1, (Accepted(ONE, 3, OutputFormat("hermes", "", False, "<think>."), (1, 2, 3), ("merged",)),)),
        FromEngine(1, (Token(ONE, "☃", (TokenLogprob(b"\xe2", -0.5, ((b"a", -1.0),)),), (7,)),), True),
        FromEngine(1, (Finished(ONE, "stop", Usage(1, 2, 3), "x"), EngineStats(1, 2, 3, 4, 5))),
        FromEngine(1, (Loaded(ModelProfile(1, "Q4", 2, "fp", True)),)),
        LogLine("a.b", 30, "text"),
    ],
    ids=lambda value: type(value).__name__ + type(getattr(value, "message", None)).__name__,
)
def test_a_value_comes_out_as_it_went_in(value: object) -> None:
    assert there_and_back(value) == value


@pytest.mark.parametrize(
    "error",
    [
        EngineError("m", "it broke"),
        ContextLengthExceeded(10, 20, "messages"),
        InvalidRequest("no", "stop"),
        TakesNoImages("m", "messages"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_says_the_same_on_the_other_side(error: ModelyardError) -> None:
    copy = there_and_back(Failed(ONE, error)).error
    assert (type(copy), str(copy), copy.code, copy.param) == (type(error), str(error), error.code, error.param)


@pytest.mark.parametrize("size", [10, MIN_SHARED_BYTES, 3 * MIN_SHARED_BYTES + 1])
def test_arrays_come_out_as_they_went_in(size: int) -> None:
    vectors = np.random.default_rng(0).random((size, 2)).astype(np.float32)
    copy = there_and_back(Embedded(ONE, vectors, 5))
    assert np.array_equal(copy.vectors, vectors)
    assert copy.vectors.dtype == vectors.dtype


@pytest.mark.parametrize(
    "medium",
    [
        salted(Image(200, 150, bytes(range(250)) * 360, "messages[1]", "low"), "key"),
        Audio(bytes(range(256)) * 400, 16_000, "input"),
    ],
    ids=["image", "sound"],
)
def test_large_media_go_beside_their_message(medium: Image | Audio) -> None:
    data, blocks = encode(ToEngine(1, Submit(ONE, Written(("Look: ", medium)))))
    assert len(data) < MIN_SHARED_BYTES
    assert len(blocks) == 1
    prompt = decode(data, blocks).message.prompt
    assert prompt == Written(("Look: ", medium))
    assert prompt.parts[1].digest == medium.digest


def test_a_small_image_goes_with_its_message() -> None:
    image = Image(2, 1, bytes(6))
    data, blocks = encode(image)
    assert (decode(data, blocks), blocks) == (image, [])


def test_media_without_their_block_are_an_error() -> None:
    data, _ = encode(Image(200, 150, bytes(90_000)))
    with pytest.raises(ForeignValue, match="no block 0 for a value of Image"):
        decode(data, [])


def test_a_block_that_was_cut_off_is_an_error() -> None:
    data, blocks = encode(Image(200, 150, bytes(90_000)))
    os.ftruncate(blocks[0].descriptor, 100)
    with pytest.raises(OSError, match="only 100 bytes of 90000 are there"):
        decode(data, blocks)


def test_a_large_state_is_not_copied_again_where_it_goes_on() -> None:
    kept = there_and_back(KeptPrefixes("i", (KeptPrompt((1,), LARGE),))).prompts[0]
    assert isinstance(kept.kv, SharedArray)
    _, blocks = encode(kept)
    assert blocks == [kept.kv.memory]
    assert np.array_equal(there_and_back(kept).kv, LARGE)


def test_a_part_of_a_shared_state_goes_by_itself() -> None:
    state = there_and_back(KeptPrompt((1,), LARGE)).kv
    assert np.array_equal(there_and_back(KeptPrompt((1,), state[:-1])).kv, LARGE[:-1])
    assert np.array_equal(there_and_back(KeptPrompt((1,), state[:5])).kv, LARGE[:5])


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_shared_memory_is_free_with_the_last_reference() -> None:
    before = open_descriptors()
    state = there_and_back(KeptPrompt((1,), LARGE))
    assert open_descriptors() > before
    del state
    gc.collect()
    assert open_descriptors() == before


@pytest.mark.parametrize(
    "value", [os.system, print, threading.Thread, socket.socket, encode], ids=lambda value: value.__name__
)
def test_nothing_else_is_made_of_bytes(value: object) -> None:
    with pytest.raises(ForeignValue):
        decode(pickle.dumps(value, 5), [])


def test_a_function_is_not_called_by_bytes() -> None:
    class Call:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("true",)

    with pytest.raises(ForeignValue, match="system"):
        decode(pickle.dumps(Call(), 5), [])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (threading.Lock(), "not part of the protocol"),
        (lambda: 1, "cannot be encoded"),
        (reduce(lambda inner, _: [inner], range(2000), []), "nested too deeply"),
    ],
    ids=["lock", "function", "nested"],
)
def test_what_the_other_side_would_not_take_is_not_sent(value: object, why: str) -> None:
    with pytest.raises(ForeignValue, match=why):
        encode(Submit(ONE, Text("a"), response_format={"a": value}))


def test_numbers_of_numpy_are_numbers() -> None:
    request = Submit(ONE, Tokens((1,)), Sampling(temperature=np.float32(0.5), seed=np.int64(3)))  # type: ignore[arg-type]
    copy = there_and_back(request)
    assert copy == request
    assert type(copy.sampling.seed) is int


def test_a_block_that_did_not_come_is_an_error() -> None:
    data, _ = encode(LARGE)
    with pytest.raises(ForeignValue, match="no block 0"):
        decode(data, [])


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    other = Channel(theirs)
    yield ours, other
    ours.close()
    other.close()


def test_a_channel_carries_values_in_order(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    values = [Tokens(tuple(range(count))) for count in (0, 1, 50_000)]
    sender = threading.Thread(target=lambda: [ours.send(value) for value in values])
    sender.start()
    assert [theirs.receive() for _ in values] == values
    sender.join()


def test_a_channel_carries_more_states_than_a_message_has_descriptors(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    states = tuple(KeptPrompt((number,), np.full(MIN_SHARED_BYTES, number % 251, np.uint8)) for number in range(450))
    sender = threading.Thread(target=ours.send, args=(KeptPrefixes("i", states),))
    sender.start()
    prompts = theirs.receive().prompts
    sender.join()
    assert [(prompt.tokens, int(prompt.kv[0]), prompt.kv.size) for prompt in prompts] == [
        ((number,), number % 251, MIN_SHARED_BYTES) for number in range(450)
    ]


def test_a_channel_whose_other_end_is_gone_says_so(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.close()
    with pytest.raises(ChannelClosed):
        ours.receive()
    with pytest.raises(ChannelClosed):
        ours.send(Suspended)


def test_a_channel_that_ends_within_a_value_says_so() -> None:
    ours, theirs = socket.socketpair()
    Channel(ours).send(Tokens(tuple(range(1000))))
    part = theirs.recv(200)
    again, writer = socket.socketpair()
    writer.sendall(part)
    writer.close()
    with pytest.raises(ChannelClosed):
        Channel(again).receive()
    for end in (ours, theirs, again):
        end.close()
