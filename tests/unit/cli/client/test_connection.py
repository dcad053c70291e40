"""What a command says of a server that is not there, is another program, hangs, or refuses."""

from __future__ import annotations

import json

import pytest

from modelyard.cli.client.connection import ServerAddress, ServerEvent, event_object, events, get, post, probe
from modelyard.errors import KeyRefused, NotModelyard, ServerRefused, ServerUnreachable
from modelyard.system.announcements import Announcement
from support.odd_server import free_port, http_answer, odd_server


def at(url: str, key: str | None = None) -> ServerAddress:
    return ServerAddress(url, key, "--url")


def test_a_port_without_a_server_is_named_with_its_address() -> None:
    with free_port() as port, pytest.raises(ServerUnreachable) as refused:
        get(at(f"http://127.0.0.1:{port}"), "/v1/server")
    assert str(refused.value).startswith(f"No server answers at http://127.0.0.1:{port}: nothing listens there.")
    assert refused.value.is_refused


def test_the_default_address_without_a_server_says_how_to_start_one() -> None:
    with free_port() as port, pytest.raises(ServerUnreachable, match="modelyard serve"):
        get(ServerAddress(f"http://127.0.0.1:{port}", None), "/v1/server")


def announced(url: str, *, is_serving: bool) -> ServerAddress:
    """A server of this machine."""
    found = Announcement(url=url, pid=1, start=None, machine="", version="", began=0.0, is_serving=is_serving)
    return ServerAddress(url, None, "announced", found)


@pytest.mark.parametrize(
    ("is_serving", "why"), [(False, "it is starting, and loads its models. Try again"), (True, "it is stopping")]
)
def test_a_server_of_this_machine_that_does_not_answer_is_loading_or_stopping(is_serving: bool, why: str) -> None:
    with free_port() as port, pytest.raises(ServerUnreachable, match=why):
        get(announced(f"http://127.0.0.1:{port}", is_serving=is_serving), "/v1/server")


def test_a_server_that_is_started_again_keeps_its_port_and_is_starting() -> None:
    with odd_server(None) as url, pytest.raises(ServerUnreachable, match="it is starting"):
        get(announced(url, is_serving=False), "/v1/server", within_s=0.2)


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(ServerUnreachable, match=r"'nowhere\.invalid' is not known"):
        get(at("http://nowhere.invalid:1"), "/v1/server")


def test_a_server_that_hangs_is_given_up() -> None:
    with odd_server(None) as url, pytest.raises(ServerUnreachable, match="does not answer in time"):
        get(at(url), "/v1/server", within_s=0.2)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (http_answer("404 Not Found", "text/plain", "404 page not found"), "answered 404 Not Found"),
        (http_answer("200 OK", "text/html", "<html><title>My\n router</title>"), "with a web page: My router"),
        (http_answer("502 Bad Gateway", "text/html", "<h1>502</h1>"), "answered 502 Bad Gateway, with a web page"),
        (http_answer("404 Not Found", "application/json", '{"detail": "Not Found"}'), "answered 404 Not Found"),
        (http_answer("200 OK", "application/json", '{"error": "Unexpected endpoint"}'), "answered 200 OK"),
        (http_answer("200 OK", "application/json", "[1]"), "answered 200 OK"),
        (http_answer("404 x", "application/json", '{"error": {"code": 404, "message": "x"}}'), "answered 404"),
        (http_answer("200 OK", "application/json", "[" * 100_000), "answered 200 OK"),
        (http_answer("500 \x1b[2J", "text/html", "<title>\x1b[31mx</title>"), "\\x1b[2J, with a web page: \\x1b[31mx"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
    ],
    ids=["ollama", "router", "proxy", "fastapi", "lm studio", "list", "llama.cpp", "nested", "escapes", "ssh"],
)
def test_another_program_is_said_to_be_one(answer: bytes, found: str) -> None:
    with odd_server(answer) as url, pytest.raises(NotModelyard) as refused:
        get(at(url), "/v1/server")
    assert url in str(refused.value)
    assert found in str(refused.value)


MODEL = {"id": "m", "state": "loaded", "running": 0, "waiting": 0}
PLAN = {"outcome": "fits", "needed_bytes": 1, "free_bytes": 1, "budget_bytes": 1, "load_seconds": 1, "evicts": []}
LINE = {"time": "2026-01-01T00:00:00Z", "level": "INFO", "message": "Hello"}
RELOAD = {"applied": True, "changed": {}, "added": [], "removed": [], "retuned": [], "memory": [], "needs_restart": []}


def server(**model: object) -> dict[str, object]:
    return {"object": "server", "memory": None, "models": [{**MODEL, **model}]}


@pytest.mark.parametrize(
    ("method", "path", "answer", "other"),
    [
        ("GET", "/v1/server", server(), {"object": "list", "models": []}),
        ("GET", "/v1/server", server(), {"object": "server"}),
        ("GET", "/v1/server", server(), {"object": "server", "models": ["m"]}),
        ("GET", "/v1/server", server(), {"object": "server", "models": [{"id": "m"}]}),
        ("GET", "/v1/server", server(aliases=["a"]), server(aliases=[1])),
        ("GET", "/v1/server", server(load_seconds=1.5), server(load_seconds="soon")),
        ("GET", "/v1/server", server(), {**server(), "memory": {"used_bytes": 1}}),
        ("POST", "/v1/models/plan", PLAN, {**PLAN, "evicts": [{"model_id": "m"}]}),
        ("POST", "/v1/models/plan", PLAN, {"outcome": "fits"}),
        ("POST", "/v1/config/reload?dry_run=true", RELOAD, {**RELOAD, "changed": {"m": {"keys": ["isq"]}}}),
        ("POST", "/v1/config/reload", RELOAD, {"applied": True}),
        ("POST", "/v1/config/reload", {**RELOAD, "mcp": ["servers.files"]}, {**RELOAD, "mcp": 1}),
        ("GET", "/v1/logs?lines=1", {"data": [LINE]}, {"data": [{**LINE, "time": "noon"}]}),
        ("GET", "/v1/logs?lines=1", {"data": [LINE]}, {"object": "list"}),
    ],
)
def test_a_program_that_answers_with_other_fields_is_not_modelyard(
    method: str, path: str, answer: dict[str, object], other: dict[str, object]
) -> None:
    def ask(body: dict[str, object]) -> dict[str, object]:
        with odd_server(http_answer("200 OK", "application/json", json.dumps(body))) as url:
            return get(at(url), path) if method == "GET" else post(at(url), path, {})

    assert ask(answer) == answer
    with pytest.raises(NotModelyard, match=r"answered .* with another object"):
        ask(other)


@pytest.mark.parametrize("data", ["", "[1]", "{}", '{"model_id": "m"}', '{"model_id": "m", "status": 1}'])
def test_a_program_that_sends_other_events_is_not_modelyard(data: str) -> None:
    address, path = at("http://box:1234"), "/v1/models/events"
    known = {"model_id": "m", "status": "loaded"}
    assert event_object(address, path, ServerEvent("status", json.dumps(known))) == known
    with pytest.raises(NotModelyard, match="sent other events"):
        event_object(address, path, ServerEvent("status", data))


def test_a_server_that_closes_the_connection_may_speak_https() -> None:
    with odd_server(b"") as url, pytest.raises(ServerUnreachable, match="write https://"):
        get(at(url), "/v1/server")


def test_a_server_without_tls_is_said_to_have_none() -> None:
    answer = http_answer("400 Bad Request", "text/plain", "")
    with odd_server(answer) as url, pytest.raises(ServerUnreachable, match="does not speak TLS"):
        get(at(url.replace("http://", "https://")), "/v1/server")


def test_the_servers_error_is_passed_on_with_its_code() -> None:
    body = json.dumps({"error": {"message": "It is busy.", "code": "model_busy", "type": "x", "param": None}})
    answer = http_answer("503 Service Unavailable", "application/json", body)
    with odd_server(answer) as url, pytest.raises(ServerRefused) as refused:
        get(at(url), "/v1/server")
    assert (str(refused.value), refused.value.server_code, refused.value.server_status) == (
        "It is busy.",
        "model_busy",
        503,
    )


@pytest.mark.parametrize(("key", "what"), [(None, "needs an API key"), ("sk-wrong", "does not know this API key")])
def test_a_server_with_keys_says_where_to_put_one_and_the_key_is_not_repeated(key: str | None, what: str) -> None:
    body = json.dumps({"error": {"message": "no", "code": "invalid_api_key"}})
    answer = http_answer("401 Unauthorized", "application/json", body)
    with odd_server(answer) as url, pytest.raises(KeyRefused, match=what) as refused:
        get(at(url, key), "/v1/server")
    assert "MODELYARD_API_KEY" in str(refused.value)
    assert "sk-wrong" not in str(refused.value)


def test_the_lines_of_a_servers_error_stay_apart_and_its_other_control_characters_are_escaped() -> None:
    body = json.dumps({"error": {"message": "models.toml: 2 problems\n\n  |\x1b[2J", "code": "config_error"}})
    answer = http_answer("400 Bad Request", "application/json", body)
    with odd_server(answer) as url, pytest.raises(ServerRefused) as refused:
        get(at(url), "/v1/server")
    assert "models.toml: 2 problems\n\n  |\\x1b[2J" in str(refused.value)


def test_an_answer_that_is_cut_is_no_answer() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"
    with odd_server(answer) as url, pytest.raises((ServerUnreachable, NotModelyard)):
        get(at(url), "/v1/server")


def test_an_error_in_place_of_events_that_is_cut_is_no_answer() -> None:
    answer = b"HTTP/1.1 500 Error\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n50\r\n{"
    with (
        odd_server(answer) as url,
        pytest.raises(ServerUnreachable),
        events(at(url), "/v1/logs", silence_s=5),
    ):
        pass


def test_events_are_read_with_names_ids_and_comments() -> None:
    stream = ': hello\n\nid: 7\nevent: log\ndata: {"a":\ndata: 1}\n\r\ndata:x\n\nevent: lost\n'
    answer = http_answer("200 OK", "text/event-stream", stream)
    with odd_server(answer) as url, events(at(url), "/v1/logs", silence_s=5) as found:
        assert [(each.name, each.data, each.id) for each in found] == [
            ("", "hello", ""),
            ("log", '{"a":\n1}', "7"),
            ("message", "x", "7"),
        ]


def test_events_of_a_program_that_has_none_are_refused() -> None:
    answer = http_answer("200 OK", "application/json", "{}")
    with odd_server(answer) as url, pytest.raises(NotModelyard), events(at(url), "/v1/logs", silence_s=5):
        pass


def test_a_server_is_alive_if_it_answers_health_and_not_if_it_hangs() -> None:
    with odd_server(http_answer("200 OK", "text/plain", "OK")) as url:
        assert probe(at(url))
    with odd_server(None) as url:
        assert not probe(at(url), within_s=0.1)
