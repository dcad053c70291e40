"""Who may do what, at which rate, by the real server: over every route that it has."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.routing import Route

from conftest import two_models
from modelyard.api.app import create_app
from modelyard.api.serving.open_paths import OPEN_PATHS, is_ui_path
from modelyard.config import Server, validate_config
from modelyard.config.key_rules import digest_of
from modelyard.protocol.requests import Cancel, Submit
from modelyard.yard.yard import Yard
from support.scripted_engines import PROMPT_TOKENS, ScriptedEngines
from support.server import WAIT_S, RunningServer, serving

KEYS = {
    "name_of_plain": "plain-key",
    "asks": "key-that-asks",
    "reads": "key-that-reads",
    "rules": "key-that-rules",
    "small": "key-for-smollm2-alone",
    "thrifty": "key-for-few-tokens",
}
TABLES = [
    {"name": "asks", "key": KEYS["asks"], "scopes": ["inference"]},
    {"name": "reads", "key": KEYS["reads"], "scopes": ["read"]},
    {"name": "rules", "key": KEYS["rules"], "scopes": ["admin"]},
    {"name": "small", "key": KEYS["small"], "scopes": ["inference", "read", "admin"], "models": ["org/smol"]},
    {"name": "thrifty", "key": f"sha256:{digest_of(KEYS['thrifty']).hex()}", "tokens_per_minute": PROMPT_TOKENS},
    *({"name": f"slow-{n}", "key": f"slow-{n}", "scopes": [], "requests_per_minute": 1} for n in range(100)),
]
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}


def routes() -> list[tuple[str, str]]:
    """Every method and path that the application serves, its parameters filled in."""
    yard = Yard(validate_config({"models": [{"model_id": "m", "load": "on-demand"}]}), ScriptedEngines().make_handle)
    served = [route for route in create_app(yard).routes if isinstance(route, Route)]
    pairs = {(method, route.path) for route in served for method in route.methods or ()}
    return sorted((method, path.replace("{model_id:path}", "smollm2")) for method, path in pairs)


GUARDED = [(method, path) for method, path in routes() if path not in OPEN_PATHS and not is_ui_path(path)]


@pytest.fixture(scope="module")
def engines() -> Iterator[ScriptedEngines]:
    engines = ScriptedEngines(answer=lambda submit: ["Hello"])
    yield engines
    assert engines.end()


@pytest.fixture(scope="module")
def server(weights: dict[str, Path], engines: ScriptedEngines) -> Iterator[RunningServer]:
    config = two_models(weights)
    settings = Server.model_validate({"api_keys": [KEYS["name_of_plain"]], "keys": TABLES})
    with serving(config.model_copy(update={"server": settings}), engines.make_handle) as running:
        yield running


def ask(server: RunningServer, method: str, path: str, key: str | None, body: Any = None) -> httpx.Response:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    with httpx.stream(method, f"{server.url}{path}", headers=headers, json=body, timeout=WAIT_S) as answer:
        if "event-stream" in answer.headers.get("content-type", ""):
            return answer
        answer.read()
        return answer


# How the dialects of Anthropic and of Ollama tell what OpenAI's calls by a code.
ANTHROPIC = {
    "authentication_error": "invalid_api_key",
    "permission_error": "permission_denied",
    "rate_limit_error": "rate_limit_exceeded",
}
OLLAMA = {401: "invalid_api_key", 403: "permission_denied", 429: "rate_limit_exceeded"}


def code(answer: httpx.Response) -> str:
    error = answer.json()["error"]
    match answer.request.url.path.split("/")[1:3]:
        case ["api", _]:
            assert isinstance(error, str)
            return OLLAMA[answer.status_code]
        case ["v1", "messages"]:
            assert set(error) == {"message", "type"}
            return ANTHROPIC[error["type"]]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["code"])


def test_the_routes_are_those_that_are_guarded() -> None:
    assert len(GUARDED) >= 12
    assert ("POST", "/v1/chat/completions") in GUARDED
    assert ("GET", "/metrics") in GUARDED


@pytest.mark.parametrize(("method", "path"), [*GUARDED, ("GET", "/nothing/here"), ("PUT", "/v1/models/unload")])
def test_without_a_right_key_every_route_is_closed_before_its_body_is_read(
    server: RunningServer, method: str, path: str
) -> None:
    for key in (None, "", "plain-ke", "plain-key ", digest_of("plain-key").hex()):
        headers = {} if key is None else {"authorization": f"Bearer {key}x"}
        answer = httpx.request(method, f"{server.url}{path}", headers=headers, content=b"{broken", timeout=WAIT_S)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-request-id"]
        if method != "HEAD":
            assert code(answer) == "invalid_api_key"


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
def test_health_is_open_to_all(server: RunningServer, path: str) -> None:
    assert ask(server, "GET", path, None).status_code == 200


def test_a_plain_key_may_use_every_route(server: RunningServer) -> None:
    for method, path in GUARDED:
        assert ask(server, method, path, KEYS["name_of_plain"]).status_code not in (401, 403, 429), (method, path)


# By what a key needs for them. A route that is not listed here is a new one: decide.
NEEDED = {
    "inference": {
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/rerank"),
        ("POST", "/v2/rerank"),
        ("POST", "/rerank"),
        ("POST", "/v1/reranking"),
        ("POST", "/reranking"),
        ("POST", "/completion"),
        ("POST", "/infill"),
        ("POST", "/v1/fim/completions"),
        ("POST", "/apply-template"),
        ("POST", "/embedding"),
        ("POST", "/v1/chat/completions/input_tokens"),
        ("POST", "/chat/completions/input_tokens"),
        ("POST", "/v1/responses"),
        ("GET", "/v1/responses/{response_id}"),
        ("DELETE", "/v1/responses/{response_id}"),
        ("GET", "/v1/responses/{response_id}/input_items"),
        ("POST", "/v1/responses/{response_id}/cancel"),
        ("POST", "/v1/responses/input_tokens"),
        ("POST", "/v1/responses/compact"),
        ("POST", "/v1/conversations"),
        ("GET", "/v1/conversations/{conversation_id}"),
        ("POST", "/v1/conversations/{conversation_id}"),
        ("DELETE", "/v1/conversations/{conversation_id}"),
        ("GET", "/v1/conversations/{conversation_id}/items"),
        ("POST", "/v1/conversations/{conversation_id}/items"),
        ("GET", "/v1/conversations/{conversation_id}/items/{item_id}"),
        ("DELETE", "/v1/conversations/{conversation_id}/items/{item_id}"),
        ("POST", "/v1/messages"),
        ("POST", "/api/chat"),
        ("POST", "/api/generate"),
        ("POST", "/api/embed"),
        ("POST", "/api/embeddings"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("POST", "/v1/tokenize"),
        ("POST", "/v1/detokenize"),
        ("POST", "/v1/audio/transcriptions"),
        ("POST", "/v1/audio/translations"),
        ("POST", "/v1/audio/speech"),
        ("POST", "/v1/images/generations"),
        ("POST", "/v1/images/edits"),
        ("POST", "/v1/images/variations"),
        ("GET", "/v1/agent/tools"),
        ("GET", "/v1/agent/approvals"),
        ("GET", "/v1/agent/approvals/events"),
        ("POST", "/v1/agent/approvals/{approval_id}"),
    },
    "read": {
        ("GET", "/v1/agent/servers"),
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/models/smollm2"),
        ("GET", "/models"),
        ("POST", "/v1/models/status"),
        ("POST", "/v1/models/plan"),
        ("GET", "/api/version"),
        ("GET", "/api/tags"),
        ("GET", "/api/ps"),
        ("POST", "/api/show"),
        ("POST", "/api/pull"),
        ("GET", "/props"),
        ("GET", "/slots"),
        ("GET", "/lora-adapters"),
        ("GET", "/v1/server"),
        ("GET", "/v1/activity"),
        ("GET", "/v1/nodes"),
        ("GET", "/v1/activity/events"),
        ("GET", "/v1/activity/{activity_id}"),
        ("GET", "/v1/models/history"),
    },
    "admin": {
        ("GET", "/v1/models/events"),
        ("POST", "/v1/models/unload"),
        ("POST", "/v1/models/reload"),
        ("POST", "/v1/models/prepare"),
        ("POST", "/v1/models/retune"),
        ("GET", "/v1/doctor"),
        ("GET", "/v1/logs"),
        ("POST", "/models/load"),
        ("GET", "/models/sse"),
        ("POST", "/models"),
        ("DELETE", "/models"),
        ("POST", "/props"),
        ("POST", "/lora-adapters"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("POST", "/slots/{slot}"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("POST", "/api/push"),
        ("DELETE", "/api/delete"),
        ("POST", "/api/blobs/{digest}"),
        ("GET", "/api/blobs/{digest}"),
        ("POST", "/models/unload"),
        ("POST", "/v1/config/reload"),
    },
}


# Routes that any scope opens: each tool and resource needs one of its own.
OF_ANY_SCOPE = {(method, "/mcp") for method in ("GET", "POST", "DELETE")}


def test_each_route_needs_its_scope(server: RunningServer) -> None:
    assert set().union(*NEEDED.values(), OF_ANY_SCOPE) == set(GUARDED)
    holders = {"inference": "asks", "read": "reads", "admin": "rules"}
    for scope, allowed in NEEDED.items():
        for method, path in GUARDED:
            answer = ask(server, method, path, KEYS[holders[scope]])
            assert (answer.status_code != 403) == ((method, path) in allowed | OF_ANY_SCOPE), (scope, method, path)
            if answer.status_code == 403 and method != "HEAD":
                assert code(answer) == "permission_denied"


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_every_route_counts_against_the_rate(server: RunningServer, method: str, path: str) -> None:
    slow = f"slow-{GUARDED.index((method, path))}"
    first, second = (ask(server, method, path, slow) for _ in range(2))
    assert (first.status_code, second.status_code) == (403, 429)
    assert first.headers["x-ratelimit-limit-requests"] == "1"
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(second.headers["retry-after"]) <= 60
    if method != "HEAD":
        assert code(second) == "rate_limit_exceeded"


def test_a_key_in_debt_for_tokens_waits(server: RunningServer) -> None:
    first = ask(server, "POST", "/v1/chat/completions", KEYS["thrifty"], CHAT)
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-tokens"] == str(PROMPT_TOKENS)
    second = ask(server, "POST", "/v1/chat/completions", KEYS["thrifty"], CHAT)
    assert (second.status_code, code(second)) == (429, "rate_limit_exceeded")
    assert "tokens a minute" in second.json()["error"]["message"]
    assert int(second.headers["retry-after"]) >= 1


def test_a_key_sees_and_uses_its_models_alone(server: RunningServer) -> None:
    key = KEYS["small"]
    listed = ask(server, "GET", "/v1/models", key).json()["data"]
    assert [model["id"] for model in listed] == ["smollm2"]
    for path in ("/api/tags", "/api/ps"):
        assert [model["name"] for model in ask(server, "GET", path, key).json()["models"]] == ["smollm2"]
    for model in ("smollm2", "org/smol", "default", None):
        assert ask(server, "POST", "/v1/chat/completions", key, {**CHAT, "model": model}).status_code == 200
    refused = [
        ask(server, "POST", "/v1/chat/completions", key, {**CHAT, "model": "google/gemma3"}),
        ask(server, "POST", "/v1/chat/completions", key, {**CHAT, "model": "google/gemma3", "stream": True}),
        ask(server, "POST", "/v1/completions", key, {"prompt": "x", "model": "google/gemma3"}),
        ask(server, "GET", "/v1/models/google/gemma3", key),
        *(
            ask(server, "POST", f"/v1/models/{what}", key, {"model_id": "google/gemma3"})
            for what in ("unload", "reload", "status", "plan")
        ),
        ask(server, "POST", "/v1/messages", key, {**CHAT, "model": "google/gemma3", "max_tokens": 5}),
        ask(server, "POST", "/v1/responses", key, {"model": "google/gemma3", "input": "Hi"}),
        *(
            ask(server, "POST", f"/api/{what}", key, {"model": "google/gemma3", "prompt": "Hi", **CHAT})
            for what in ("chat", "generate", "show")
        ),
    ]
    assert [(answer.status_code, code(answer)) for answer in refused] == [(403, "permission_denied")] * len(refused)
    assert refused[0].json()["error"]["message"].endswith("It may use: smollm2.")
    unknown = ask(server, "GET", "/v1/models/no-such", key)
    assert unknown.status_code == 404
    assert "gemma3" not in unknown.text
    # What is about all models is not for it.
    for method, path in (("GET", "/metrics"), ("GET", "/v1/models/events"), ("POST", "/v1/config/reload")):
        assert ask(server, method, path, key).status_code == 403


def test_the_official_client_tells_the_refusals_apart(server: RunningServer) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEYS["small"], max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model="google/gemma3", **CHAT)
        assert client.chat.completions.create(model="smollm2", **CHAT).choices[0].message.content == "Hello"
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="slow-99", max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError):
            client.models.list()
        with pytest.raises(openai.RateLimitError):
            client.models.list()


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:80", "LOCALHOST", "127.9.9.9:5"])
def test_the_machines_own_names_are_answered_to(server: RunningServer, host: str) -> None:
    assert httpx.get(f"{server.url}/health", headers={"host": host}, timeout=WAIT_S).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:1234", "192.168.0.1", "", "a:b:c"])
@pytest.mark.parametrize("path", ["/health", "/v1/models"])
def test_no_other_name_is(server: RunningServer, host: str, path: str) -> None:
    headers = {"host": host, "authorization": f"Bearer {KEYS['name_of_plain']}"}
    answer = httpx.get(f"{server.url}{path}", headers=headers, timeout=WAIT_S)
    assert (answer.status_code, code(answer)) == (403, "host_not_allowed")
    assert "allowed_hosts" in answer.text


def test_a_client_that_leaves_pays_for_what_it_used(weights: dict[str, Path]) -> None:
    """Else a stream that is cut before its end would be free."""
    engines = ScriptedEngines()
    settings = Server.model_validate({"keys": [{"key": "k", "tokens_per_minute": PROMPT_TOKENS}]})
    config = two_models(weights).model_copy(update={"server": settings})
    with serving(config, engines.make_handle) as server:
        engine = engines.started("smollm2")
        headers = {"authorization": "Bearer k"}
        body = {**CHAT, "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, headers=headers) as answer:
            assert answer.status_code == 200
            engine.heard(Submit)
            engine.say("Hello")
            next(line for line in answer.iter_lines() if "Hello" in line)
        engine.heard(Cancel)
        deadline = time.monotonic() + WAIT_S
        while ask(server, "GET", "/v1/models", "k").status_code == 200:
            assert time.monotonic() < deadline
    assert engines.end()


def test_nothing_of_cors_is_said_unless_it_is_configured(server: RunningServer) -> None:
    headers = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    preflight = httpx.options(f"{server.url}/v1/chat/completions", headers=headers, timeout=WAIT_S)
    assert preflight.status_code == 401
    assert not [name for name in preflight.headers if name.startswith("access-control")]


def test_configured_origins_may_ask_without_a_key_whether_they_may_ask(weights: dict[str, Path]) -> None:
    engines = ScriptedEngines(answer=lambda submit: ["Hello"])
    settings = Server.model_validate(
        {"api_keys": ["k"], "cors_origins": ["https://chat.example"], "allowed_hosts": ["models.lan"]}
    )
    config = two_models(weights).model_copy(update={"server": settings})
    with serving(config, engines.make_handle) as server:
        url = f"{server.url}/v1/chat/completions"
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        preflight = httpx.options(url, headers={"origin": "https://chat.example", **asked}, timeout=WAIT_S)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://chat.example"
        stranger = httpx.options(url, headers={"origin": "https://evil.example", **asked}, timeout=WAIT_S)
        assert "access-control-allow-origin" not in stranger.headers
        headers = {"origin": "https://chat.example", "authorization": "Bearer k", "host": "models.lan:1234"}
        answer = httpx.post(url, json={**CHAT, "stream": True}, headers=headers, timeout=WAIT_S)
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        assert json.loads(answer.text.split("\n\n")[0].removeprefix("data: "))["object"] == "chat.completion.chunk"
    assert engines.end()


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/nothing", "/docs", "/v1/chat/completions"])
def test_every_answer_says_that_it_is_nobody_elses(server: RunningServer, path: str) -> None:
    for key in (None, KEYS["name_of_plain"]):
        headers = ask(server, "GET", path, key).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"


def test_foreign_pages_have_nothing_done_on_any_route(server: RunningServer) -> None:
    for method, path in routes():
        if method in ("GET", "HEAD"):
            continue
        for sent in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
            headers = {**sent, "authorization": f"Bearer {KEYS['name_of_plain']}"}
            answer = httpx.request(method, f"{server.url}{path}", headers=headers, timeout=WAIT_S)
            assert answer.status_code == 403, (method, path)
            assert "cors_origins" in answer.text


def test_the_servers_own_page_runs_its_own_script_alone(server: RunningServer) -> None:
    page = ask(server, "GET", "/docs", None)
    policy = page.headers["content-security-policy"]
    script = page.text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert page.headers["x-frame-options"] == "DENY"
    assert "max-age" in ask(server, "GET", "/docs/swagger-ui.css", None).headers["cache-control"]
    headers = {"origin": server.url, "authorization": f"Bearer {KEYS['name_of_plain']}"}
    asked = httpx.post(f"{server.url}/v1/chat/completions", json=CHAT, headers=headers, timeout=WAIT_S)
    assert asked.status_code == 200
