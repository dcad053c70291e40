"""What keys of people who do not trust each other see of one another, and take from one another: nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from conftest import two_models
from modelyard.api.app import create_app
from modelyard.api.serving.open_paths import PAGE_PATHS
from modelyard.config import Server, validate_config
from modelyard.config.key_rules import digest_of
from modelyard.protocol.requests import Submit
from modelyard.yard.yard import Yard
from support.images import data_url, encoded, noise
from support.scripted_engines import PROMPT_TOKENS, ScriptedEngines
from support.server import WAIT_S, RunningServer, serving

HIDDEN = re.compile("gemma", re.IGNORECASE)
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
PICTURE = {"type": "image_url", "image_url": {"url": data_url(encoded(noise(1, 8, 8)))}}
SEEING: dict[str, Any] = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, PICTURE]}]}
RERANK = {"query": "q", "documents": ["d"]}

# What is asked of each route that reads a body, beside the name of a model.
BODIES: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [CHAT, {**CHAT, "stream": True}, SEEING],
    "/v1/completions": [{"prompt": "x"}],
    "/v1/embeddings": [{"input": "x"}],
    "/v1/rerank": [RERANK],
    "/v2/rerank": [RERANK],
    "/rerank": [RERANK],
    "/v1/responses": [{"input": "x"}, {"input": "x", "background": True}],
    "/v1/messages": [{**CHAT, "max_tokens": 5}],
    "/api/chat": [CHAT, {"messages": []}],
    "/api/generate": [{"prompt": "x"}, {}],
    "/api/embed": [{"input": "x"}, {}],
    "/api/embeddings": [{"prompt": "x"}],
    "/v1/audio/speech": [{"input": "x"}],
}
NAMED_OTHERWISE = {"/v1/models/unload": "model_id", "/v1/models/reload": "model_id", "/v1/models/status": "model_id"}
NAMED_OTHERWISE |= {"/v1/models/plan": "model_id", "/v1/models/retune": "model_id"}


def routes() -> list[tuple[str, str]]:
    """Every method and path that the application serves, its parameters filled in."""
    yard = Yard(validate_config({"models": [{"model_id": "m", "load": "on-demand"}]}), ScriptedEngines().make_handle)
    served = [route for route in create_app(yard).routes if isinstance(route, Route)]
    pairs = {(method, route.path) for route in served for method in route.methods or ()}
    return sorted((method, path.replace("{model_id:path}", "smollm2")) for method, path in pairs)


def answering(weights: dict[str, Path], engines: ScriptedEngines, default: str = "smollm2", **server: Any) -> Any:
    """A server of both models on scripted engines, with settings of ``[server]``."""
    config = two_models(weights)
    update = {"server": Server.model_validate(server), "default_model_id": default}
    return serving(config.model_copy(update=update), engines.make_handle)


def ask(
    server: RunningServer, path: str, key: str | None, body: Any = None, method: str | None = None, **headers: str
) -> httpx.Response:
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    method = method or ("GET" if body is None else "POST")
    return httpx.request(method, f"{server.url}{path}", headers=headers, json=body, timeout=WAIT_S)


def chat(server: RunningServer, key: str, body: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
    return ask(server, "/v1/chat/completions", key, {**CHAT, **(body or {})}, **headers)


def until(is_so: Callable[[], bool]) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline


@pytest.fixture(scope="module")
def engines() -> Iterator[ScriptedEngines]:
    engines = ScriptedEngines(answer=lambda submit: ["Hello"])
    yield engines
    assert engines.end()


SCOPES = ["inference", "read", "admin"]


@pytest.fixture(scope="module", params=["smollm2", "google/gemma3"])
def server(
    request: pytest.FixtureRequest, weights: dict[str, Path], engines: ScriptedEngines
) -> Iterator[RunningServer]:
    """Also where the default is a model that the key may not see."""
    keys = [{"name": "small", "key": "small", "models": ["smollm2"], "scopes": SCOPES}]
    with answering(weights, engines, request.param, api_keys=["full"], keys=keys) as running:
        yield running


# Streams that end when their client leaves. Keys that watch their own calls are in tests/integration/test_agent.py, and
# keys that watch their own requests in tests/unit/api/server/test_activity.py.
ENDLESS = frozenset({"/v1/agent/approvals/events", "/v1/activity/events"})


# What is the same on every server has its own examples.
@pytest.mark.parametrize(("method", "path"), [pair for pair in routes() if pair[1] not in PAGE_PATHS | ENDLESS])
def test_a_limited_key_learns_no_name_of_a_hidden_model(server: RunningServer, method: str, path: str) -> None:
    bodies: list[Any] = [None]
    if method == "POST":
        named = NAMED_OTHERWISE.get(path, "model")
        names: tuple[str | None, ...] = (None, "smollm2", "smol", "no-such:latest")
        bodies += [
            {**body, **({} if name is None else {named: name})} for body in BODIES.get(path, [{}]) for name in names
        ]
    for body in bodies:
        answer = ask(server, path, "small", body, method, **{"x-request-id": "1"})
        told = f"{answer.headers} {answer.text}"
        assert not HIDDEN.search(told), (body, told)


def test_a_limited_key_hears_no_more_of_a_hidden_model_than_it_says_itself(server: RunningServer) -> None:
    answer = chat(server, "small", {"model": "google/gemma3"})
    assert answer.status_code == 403
    message = answer.json()["error"]["message"]
    assert message == "This API key may not use the model 'google/gemma3'. It may use: smollm2."


def test_the_full_key_sees_both(server: RunningServer) -> None:
    """Else nothing would be hidden in the test above."""
    assert HIDDEN.search(ask(server, "/v1/models", "full").text)
    assert HIDDEN.search(chat(server, "full", {"model": "no-such"}).text)


def test_health_says_yes_or_no_without_a_key_and_more_to_those_that_may_read(weights: dict[str, Path]) -> None:
    engines = ScriptedEngines()
    keys = [
        {"key": "small", "models": ["smollm2"]},
        {"key": "asks", "scopes": ["inference"]},
    ]
    with answering(weights, engines, api_keys=["full"], keys=keys) as server:
        hidden, own = "/health?model=google/gemma3", "/health?model=smollm2"
        assert ask(server, "/health/ready", None).json() == {"status": "ok"}
        assert ask(server, "/health/ready", "full").json() == {"status": "ok", "failed": {}}
        engines.started("google/gemma3").die("out of patience")
        until(lambda: ask(server, "/health/ready", None).status_code == 503)
        for stranger in (None, "wrong", "asks"):
            assert ask(server, "/health/ready", stranger).json() == {"status": "failed"}
            no, unknown, yes = (ask(server, path, stranger) for path in (hidden, "/health?model=x", own))
            assert (no.status_code, no.json()) == (503, {"status": "unavailable"})
            assert (unknown.status_code, unknown.json()) == (503, {"status": "unavailable"})
            assert (yes.status_code, yes.json()) == (200, {"status": "ok"})
        assert ask(server, "/health/ready", "small").json() == {"status": "failed", "failed": {}}
        assert ask(server, hidden, "small").json() == {"status": "unavailable"}
        assert ask(server, own, "small").json() == {"model": "smollm2", "status": "ok"}
        reasons = {"google/gemma3": "out of patience"}
        assert ask(server, "/health/ready", "full").json() == {"status": "failed", "failed": reasons}
        assert ask(server, hidden, "full").json()["reason"] == "out of patience"
        assert ask(server, "/health?model=x", "full").status_code == 404
    assert engines.end()


def submits(engines: ScriptedEngines, number: int) -> list[Submit]:
    return [message for message in engines.started("smollm2").heard(Submit, number) if isinstance(message, Submit)]


def test_what_a_key_may_have_is_bounded_before_anything_is_computed(weights: dict[str, Path]) -> None:
    engines = ScriptedEngines(answer=lambda submit: ["Hello"])
    keys = [{"key": "few", "max_tokens": 50, "max_context": 99, "max_priority": 3}, {"key": "other"}]
    with answering(weights, engines, api_keys=["full"], keys=keys) as server:
        refused = chat(server, "few", {"max_tokens": 51})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "max_tokens"
        asked = [
            chat(server, "few", {"max_tokens": 50}, **{"x-priority": "100"}),
            chat(server, "few", **{"x-priority": "-4"}),
            chat(server, "few"),
            chat(server, "other", **{"x-priority": "100"}),
            chat(server, "full", **{"x-priority": "100"}),
        ]
        assert [answer.status_code for answer in asked] == [200] * 5
        heard = submits(engines, 5)
        assert [one.priority for one in heard] == [3, -4, 0, 0, 100]
        assert [(one.max_tokens, one.max_answer, one.max_context) for one in heard] == [
            (50, 50, 99),
            (None, 50, 99),
            (None, 50, 99),
            (None, None, None),
            (None, None, None),
        ]
        salts = [one.cache_salt for one in heard]
        assert salts[0] == salts[1] == salts[2]
        assert len(set(salts)) == 3
        assert not {digest_of(key).hex()[:32] for key in ("few", "other", "full")} & set(salts)
    assert engines.end()


def test_keep_alive_is_followed_for_keys_that_may_unload_and_ignored_for_others(weights: dict[str, Path]) -> None:
    engines = ScriptedEngines(answer=lambda submit: ["Hello"])
    with answering(weights, engines, api_keys=["full"], keys=[{"key": "small"}]) as server:
        paths = {
            "/v1/chat/completions": CHAT,
            "/v1/messages": {**CHAT, "max_tokens": 5},
            "/v1/responses": {"input": "x"},
            "/api/chat": CHAT,
            "/api/generate": {"prompt": "x"},
        }
        for path, body in paths.items():
            for keep_alive in (0, -1, "0s"):
                answer = ask(server, path, "small", {**body, "model": "smollm2", "keep_alive": keep_alive})
                assert (answer.status_code, answer.headers.get("x-modelyard-ignored")) == (200, "keep_alive"), path
        assert "x-modelyard-ignored" not in chat(server, "small").headers
        refused = ask(server, "/api/generate", "small", {"model": "smollm2", "keep_alive": 0})
        assert refused.status_code == 403
        loaded = ask(server, "/v1/models/status", "small", {"model_id": "smollm2"}).json()
        assert loaded["status"] == "loaded"
        followed = chat(server, "full", {"keep_alive": 0})
        assert "x-modelyard-ignored" not in followed.headers
        status = {"model_id": "smollm2"}
        until(lambda: ask(server, "/v1/models/status", "small", status).json()["status"] != "loaded")
    assert engines.end()


def test_a_key_has_no_more_answers_at_once_than_it_may(weights: dict[str, Path]) -> None:
    engines = ScriptedEngines()
    with answering(weights, engines, keys=[{"key": "two", "max_concurrent": 2}, {"key": "other"}]) as server:
        with ExitStack() as open_:
            for number in range(2):
                headers = {"authorization": "Bearer two"}
                body = {**CHAT, "stream": True}
                open_.enter_context(
                    httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, headers=headers)
                )
                engines.started("smollm2").heard(Submit, number + 1)
            refused = chat(server, "two")
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "concurrency_limit_exceeded")
            assert int(refused.headers["retry-after"]) >= 1
            background = ask(server, "/v1/responses", "two", {"input": "x", "background": True})
            assert background.status_code == 429
            assert ask(server, "/v1/models", "two").status_code == 200
            engines.started("smollm2").finish()
        server.settle()
        # Each choice of a request counts.
        assert chat(server, "two", {"n": 3}).status_code == 429
        engines.started("smollm2")
        with ThreadPoolExecutor(1) as waiting:
            answer = waiting.submit(chat, server, "other", {"n": 3})
            # Two of the three choices that were refused had been sent, and were cancelled.
            submits(engines, 3)
            while not answer.done():
                engines.started("smollm2").finish()
            assert answer.result().status_code == 200
    assert engines.end()


def test_requests_at_once_use_no_more_tokens_than_there_were_but_for_one_answer(weights: dict[str, Path]) -> None:
    answer_tokens = 130
    engines = ScriptedEngines(answer=lambda submit: ["x"] * answer_tokens)
    with answering(weights, engines, keys=[{"key": "k", "tokens_per_minute": 300}]) as server:
        with ThreadPoolExecutor(12) as clients:
            bodies = [{"max_tokens": answer_tokens}] * 6 + [{}] * 6
            answers = list(clients.map(lambda body: chat(server, "k", body), bodies))
        used = [answer.json()["usage"]["total_tokens"] for answer in answers if answer.status_code == 200]
        assert used
        assert sum(used) <= 300 + PROMPT_TOKENS + answer_tokens
        refused = [answer for answer in answers if answer.status_code != 200]
        assert {(answer.status_code, answer.json()["error"]["code"]) for answer in refused} == {
            (429, "rate_limit_exceeded")
        }
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert engines.end()


def test_responses_of_a_key_are_nobody_elses_and_leave_room_for_others(weights: dict[str, Path]) -> None:
    engines = ScriptedEngines()
    with answering(weights, engines, keys=[{"key": "a"}, {"key": "b"}]) as server:
        begun = [ask(server, "/v1/responses", "a", {"input": "x", "background": True}) for _ in range(33)]
        assert [answer.status_code for answer in begun] == [200] * 32 + [429]
        assert "of this API key" in begun[-1].json()["error"]["message"]
        other = ask(server, "/v1/responses", "b", {"input": "x", "background": True})
        assert other.status_code == 200
        name = begun[0].json()["id"]
        for method, path in (
            ("GET", f"/v1/responses/{name}"),
            ("GET", f"/v1/responses/{name}/input_items"),
            ("DELETE", f"/v1/responses/{name}"),
            ("POST", f"/v1/responses/{name}/cancel"),
        ):
            assert ask(server, path, "b", method=method).status_code == 404
        assert ask(server, "/v1/responses", "b", {"input": "x", "previous_response_id": name}).status_code == 404
        assert ask(server, f"/v1/responses/{name}/cancel", "a", method="POST").json()["status"] == "cancelled"
    assert engines.end()


def cached(server: RunningServer, key: str, question: str) -> int:
    messages = [{"role": "system", "content": "word " * 60}, {"role": "user", "content": question}]
    answer = chat(server, key, {"messages": messages, "max_tokens": 1}).json()
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


def test_the_beginning_of_a_prompt_is_found_by_its_own_group_alone(weights: dict[str, Path]) -> None:
    keys = [{"key": "a", "group": "x"}, {"key": "b", "group": "x"}, {"key": "stranger"}, {"key": "other", "group": "y"}]
    config = two_models(weights)
    settings = Server.model_validate({"keys": keys, "share_prefixes": "group"})
    models = tuple(model for model in config.models if model.id == "smollm2")
    with serving(config.model_copy(update={"server": settings, "models": models})) as server:
        assert cached(server, "a", "one") == 0
        assert cached(server, "stranger", "two") == 0
        assert cached(server, "other", "three") == 0
        assert cached(server, "b", "four") > 60
        assert cached(server, "stranger", "five") > 60
