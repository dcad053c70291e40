"""The access log shows enough of refused requests to find their client, and nothing that harms the log."""

from __future__ import annotations

import json
import logging

import pytest

from modelyard.api.middleware.access_log import LOGGER, MAX_PATH_CHARS, MAX_REFUSALS_AT_ONCE, AccessLog, LineLimit
from modelyard.api.request_context import RequestContext
from modelyard.config import Server


def request(path: str = "/nowhere", status: int = 404, ended: float = 1.0, **fields: object) -> RequestContext:
    context = RequestContext({"type": "http", "method": "POST", "path": path, "headers": [(b"x-request-id", b"r")]})
    context.status, context.began, context.ended = status, 1.0, ended
    for name, value in fields.items():
        setattr(context, name, value)
    return context


def lines(caplog: pytest.LogCaptureFixture, *requests: RequestContext, **server: object) -> list[str]:
    log = AccessLog(Server.model_validate(server))
    with caplog.at_level(logging.INFO, LOGGER):
        for each in requests:
            log.note(each)
    return caplog.messages


def test_a_path_that_is_not_served_is_shown_with_the_code(caplog: pytest.LogCaptureFixture) -> None:
    refused = request("/v1/chat/completion", error_code="not_found")
    assert lines(caplog, refused) == [
        "POST unknown 404 path=/v1/chat/completion ms=0.0 error=not_found request_id=r",
    ]


def test_a_model_that_does_not_exist_and_a_field_that_is_wrong_are_named(caplog: pytest.LogCaptureFixture) -> None:
    refused = request(error_code="model_not_found", error_param="model", unknown_model="gpt 4")
    refused.caller.has_asked = True
    (line,) = lines(caplog, refused)
    assert "model=gpt%204 " in line
    assert "param=model " in line


def test_an_answered_request_shows_no_path(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = lines(caplog, request("/v1/models/m", 200))
    assert "path=" not in line


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/a\nINFO forged", "path=/a\\nINFO%20forged "),
        ("/\x1b[2J\x9b\u202e", "path=/\\x1b[2J\\x9b\\u202e "),
        ("/v1/sk-secret/x", "path=/v1/***/x "),
        ("/v1/0123456789abcdef0123456789abcdef", "path=/v1/*** "),
        ("/" + "x" * 9999, f"path=/{'x' * (MAX_PATH_CHARS - 1)}… "),
    ],
    ids=["line break", "terminal codes", "key", "digest", "long"],
)
def test_a_path_neither_forges_lines_nor_drives_terminals_nor_shows_keys(
    caplog: pytest.LogCaptureFixture, path: str, shown: str
) -> None:
    (line,) = lines(caplog, request(path))
    assert shown in line


def test_a_flood_of_refused_requests_is_counted_in_place_of_its_lines(caplog: pytest.LogCaptureFixture) -> None:
    flood = [request(ended=1.0) for _ in range(1000)]
    shown = lines(caplog, *flood, request("/v1/models", 200, ended=2.0))
    assert len(shown) == MAX_REFUSALS_AT_ONCE + 2
    assert shown[-2] == "950 more requests were refused; the log has 10 of them a second"
    assert shown[-1].startswith("POST unknown 200")


def test_lines_of_json_stay_json(caplog: pytest.LogCaptureFixture) -> None:
    shown = lines(caplog, *[request() for _ in range(60)], request(ended=9.0), access_log_format="json")
    parsed = [json.loads(line) for line in shown]
    assert parsed[0]["path"] == "/nowhere"
    assert parsed[-2]["refused_without_line"] == 10


def test_a_name_that_does_not_print_leaves_json_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    name = "a\xa0b\x7f\U000e0067"
    served = request(status=200)
    served.caller.has_asked, served.caller.model = True, name
    (line,) = lines(caplog, served, access_log_format="json")
    assert line.isprintable()
    assert json.loads(line)["model"] == name


def test_a_limit_fills_evenly() -> None:
    limit = LineLimit(per_s=2.0, at_once=3.0)
    assert [limit.allows(100.0) for _ in range(4)] == [True, True, True, False]
    assert [limit.allows(100.5), limit.allows(100.5)] == [True, False]
    assert (limit.reset(), limit.reset()) == (2, 0)
