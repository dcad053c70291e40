"""What is taken of a request, and what of it goes on into headers, logs and labels."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from modelyard.api.errors.rendering import error_response
from modelyard.api.middleware.access_log import fields_of
from modelyard.api.middleware.http_metrics import HttpMetrics
from modelyard.api.request_context import RequestContext
from modelyard.errors import InvalidRequest, ModelNotFound, ModelNotPermitted, QueueFull
from modelyard.protocol.events import Accepted
from modelyard.protocol.values import SequenceId
from modelyard.yard.requests.context import CALLER
from modelyard.yard.requests.router import Router
from modelyard.yard.requests.token_stream import TokenStream


def visit(request_id: bytes | None = None, method: str = "POST", path: str = "/v1/completions") -> RequestContext:
    headers = [] if request_id is None else [(b"x-request-id", request_id)]
    return RequestContext({"type": "http", "method": method, "path": path, "headers": headers})


@pytest.mark.parametrize("sent", [b"a", b"req_0123-abc.DEF", b"~" * 128])
def test_a_clients_own_id_is_kept(sent: bytes) -> None:
    assert visit(sent).request_id == sent.decode()


@pytest.mark.parametrize("sent", [None, b"", b" ", b"a b", b"a\nX-Evil: 1", b"\x7f", "ä".encode(), b"a" * 129])
def test_one_that_could_not_stand_in_a_log_is_replaced(sent: bytes | None) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", visit(sent).request_id)


def test_what_had_no_effect_is_listed_once_in_a_header() -> None:
    context = visit()
    assert context.ignored_header == []
    context.ignore(["keep_alive", "tools[2]"])
    context.ignore(["keep_alive"])
    assert context.ignored_header == [(b"x-modelyard-ignored", b"keep_alive, tools[2]")]


def test_what_the_client_asked_to_have_left_out_is_listed_on_a_strict_server_too() -> None:
    context = visit()
    context.is_strict = True
    context.note(["input (4 oldest turns)"])
    context.ignore([])
    assert context.ignored_header == [(b"x-modelyard-ignored", b"input (4 oldest turns)")]
    with pytest.raises(InvalidRequest, match="'keep_alive' would have no effect"):
        context.ignore(["keep_alive"])


def test_repairs_of_the_conversation_are_listed_in_a_header() -> None:
    context = visit()
    assert context.repaired_header == []
    answer = TokenStream("smol")
    context.caller.requests.append(answer)
    assert context.repaired_header == []
    answer.put(Accepted(SequenceId(1), 5, repairs=("merged messages[0] and messages[1]", "é")))
    assert context.repaired_header == [(b"x-modelyard-repaired", b"merged messages[0] and messages[1], %C3%A9")]


@given(names=st.lists(st.text(max_size=200), min_size=1, max_size=60))
def test_a_header_of_what_had_no_effect_is_short_and_printable(names: list[str]) -> None:
    context = visit()
    context.ignore([*names, "\ud800"])
    ((_, value),) = context.ignored_header
    assert re.fullmatch(rb"[ -~]*", value)
    assert value.count(b",") <= 32


@given(sent=st.binary(max_size=200))
def test_an_id_is_always_one_short_printable_word(sent: bytes) -> None:
    assert re.fullmatch(r"[!-~]{1,128}", visit(sent).request_id)


NAMES = Router({"smol": ("smol", "org/smol"), "gemma": ("gemma",)}, "smol")


def ask(seen: RequestContext, name: Any) -> None:
    token = CALLER.set(seen.caller)
    try:
        NAMES.route(name)
    finally:
        CALLER.reset(token)


@given(names=st.lists(st.text(max_size=20) | st.sampled_from(["smol", "org/smol", "gemma", "default"]), max_size=20))
def test_labels_are_bounded_whatever_models_methods_and_paths_are_asked_for(names: list[str]) -> None:
    tally = HttpMetrics()
    for name in names:
        seen = visit(method=f"X{name}", path=f"/v1/{name}")
        tally.begin(seen)
        try:
            ask(seen, name)
        except ModelNotFound:
            assert seen.model == "unknown"
        tally.end(seen)
    assert {model for _, _, model, _ in tally.total} <= {"smol", "gemma", "unknown"}
    assert {path for _, path, _, _ in tally.total} <= {"unknown"}
    assert {method for method, _, _, _ in tally.total} <= {"OTHER"}
    assert sum(tally.total.values()) == len(names)
    assert not list(tally.in_flight())


def test_a_request_for_no_model_is_for_none() -> None:
    assert visit().model == "none"


def test_a_request_is_in_flight_until_it_is_over() -> None:
    tally, seen = HttpMetrics(), visit()
    tally.begin(seen)
    ask(seen, "org/smol")
    assert list(tally.in_flight()) == [(("POST", "unknown", "smol"), 1)]
    tally.end(seen)
    assert list(tally.in_flight()) == []


def test_a_caller_is_limited_to_its_models_and_hears_of_no_others() -> None:
    seen = visit()
    seen.caller.models = frozenset({"gemma"})
    ask(seen, "gemma")
    for name, heard in ((None, "default"), ("default", "default"), ("org/smol", "org/smol")):
        with pytest.raises(ModelNotPermitted, match=rf"may not use the model '{heard}'\. It may use: gemma\."):
            ask(seen, name)
    with pytest.raises(ModelNotFound) as missing:
        ask(seen, "smo")
    assert missing.value.known == ("gemma",)


def test_a_line_of_the_log_has_no_path_and_no_id_that_was_not_checked() -> None:
    seen = visit(b"a b", path="/v1/models/secret\nname")
    seen.ended = seen.began + 0.25
    facts = fields_of(seen)
    assert facts == {"method": "POST", "route": "unknown", "status": 499, "ms": 250.0, "request_id": seen.request_id}


async def test_a_line_of_the_log_has_the_code_of_the_error_that_a_request_was_refused_with() -> None:
    seen = visit()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        pass

    await error_response(QueueFull("smol", 8), "/v1/completions")(seen._scope, receive, send)
    assert fields_of(seen)["error"] == "queue_full"


@pytest.mark.parametrize(
    ("path", "status", "is_housekeeping"),
    [
        ("/v1/server", 200, True),
        ("/ui/assets/index.js", 200, True),
        ("/v1/activity/events", 200, True),
        ("/v1/models/history", 200, True),
        ("/v1/models/history", 401, False),
        ("/v1/chat/completions", 200, False),
    ],
)
def test_what_a_page_asks_for_every_few_seconds_is_housekeeping_unless_refused(
    path: str, status: int, is_housekeeping: bool
) -> None:
    context = RequestContext({"type": "http", "method": "GET", "path": path, "headers": []})
    context.status = status
    assert context.is_housekeeping is is_housekeeping
