"""What becomes of requests whose engine is gone without a word about them."""

from __future__ import annotations

from modelyard.errors import EngineError
from modelyard.protocol.events import Accepted, Suspended, Token
from modelyard.protocol.messages import Message
from modelyard.protocol.prompts import Text
from modelyard.protocol.requests import Submit
from modelyard.protocol.suspended import SuspendedSequence
from modelyard.protocol.values import SequenceId
from modelyard.yard.requests.token_estimate import cells_needed
from modelyard.yard.requests.token_stream import TokenStream
from modelyard.yard.residency import events
from modelyard.yard.residency.policy import ModelPolicy
from modelyard.yard.residency.state import ModelState
from modelyard.yard.residency.waiting import RequestId
from modelyard.yard.runtime.inflight import InflightRequests
from modelyard.yard.stats.counters import Counters
from modelyard.yard.stats.request_log import RequestLog

REQUEST = RequestId(1)
SEQUENCE = SequenceId(1)
SUBMIT = Submit(SEQUENCE, Text("a"))
STATE = SuspendedSequence("i", SUBMIT, (1,), (2,), None, 0)


class Silent:
    """An engine that publishes no events of its own."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def start(self) -> None: ...

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def join(self, timeout_s: float) -> bool:
        return True


def resumed() -> tuple[InflightRequests, Silent, TokenStream, list[events.ResidencyEvent]]:
    """A request that has published text, was suspended, and was sent to another engine."""
    fed: list[events.ResidencyEvent] = []
    streams, generation = InflightRequests(Counters(), fed.append, lambda: False, RequestLog()), TokenStream("m")
    streams.add(REQUEST, "m", SUBMIT, generation)
    engine = Silent()
    for _ in range(2):
        streams.grant(REQUEST, engine, ModelState(ModelPolicy("m", 9)), "fp", alone=False)
        if not fed:
            list(streams.receive("m", [Accepted(SEQUENCE, 1), Token(SEQUENCE, "x", (), (2,))], 1.0))
            list(streams.receive("m", [Suspended(SEQUENCE, STATE)], 2.0))
    return streams, engine, generation, fed


async def test_a_request_that_the_engine_did_not_receive_goes_on_from_its_state() -> None:
    streams, engine, generation, fed = resumed()
    streams.lose(engine, "it died")
    assert fed[-1] == events.RequestSuspended("m", REQUEST, 0, cells_needed(SUBMIT, STATE))
    assert streams.open[REQUEST].suspended == STATE
    assert not generation.is_over


async def test_a_request_with_tokens_since_its_resumption_ends_and_repeats_nothing() -> None:
    streams, engine, generation, fed = resumed()
    list(streams.receive("m", [Token(SEQUENCE, "y", (), (3,))], 3.0))
    streams.lose(engine, "it died")
    assert fed[-1] == events.RequestEnded("m", REQUEST)
    assert generation.take_text() == "xy"
    assert isinstance(generation._error, EngineError)


async def test_the_echo_of_a_prompt_is_not_its_first_token() -> None:
    streams, generation = InflightRequests(Counters(), lambda _: None, lambda: False, RequestLog()), TokenStream("m")
    streams.add(REQUEST, "m", SUBMIT, generation)
    for now, ids in ((1.0, ()), (2.0, (5,)), (3.0, (6,))):
        list(streams.receive("m", [Token(SEQUENCE, "x", (), ids)], now))
    assert (generation.times.first, generation.times.last) == (2.0, 3.0)
