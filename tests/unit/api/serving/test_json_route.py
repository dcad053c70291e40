"""Bodies are read as FastAPI reads them, and refused in the same words."""

from __future__ import annotations

import json
import threading
from typing import Annotated, Any

import fastapi
import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel

from modelyard.api.errors import rendering
from modelyard.api.middleware.body_intake import BodyIntake
from modelyard.api.middleware.http_metrics import HttpMetrics
from modelyard.api.middleware.telemetry import Telemetry
from modelyard.api.serving.json_body import MAX_LISTS, MAX_OBJECTS, MAX_VALUES
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.request_body import MAX_INLINE_BYTES, RequestBody
from modelyard.api.serving.request_memory import RequestMemory
from modelyard.config import Server


class Body(BaseModel):
    number: int


def app(route_class: type) -> FastAPI:
    router = APIRouter()
    if route_class is JsonRoute:
        router = APIRouter(route_class=JsonRoute)

    @router.post("/it", response_model=None)
    async def it(body: Body, http: Request) -> Response:
        return PlainTextResponse(f"{body.number} {http.headers['x-more']}")

    app = FastAPI()
    rendering.install(app)
    app.add_middleware(BodyIntake, memory=RequestMemory(1 << 30))
    app.router.routes.extend(router.routes)
    return app


async def answer(app: FastAPI, content: bytes, content_type: str | None) -> tuple[int, str]:
    headers = {"x-more": "more"} | ({} if content_type is None else {"content-type": content_type})
    observed = Telemetry(app, Server(disable_access_log=True), HttpMetrics())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(observed), base_url="http://test") as client:
        answer = await client.post("/it", content=content, headers=headers)
    return answer.status_code, answer.text


JSON = "application/json"


async def test_the_endpoint_gets_the_body_and_the_request() -> None:
    assert await answer(app(JsonRoute), b'{"number": 7}', JSON) == (200, "7 more")


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b'{"number": 7}', "Application/JSON; charset=utf-8"),
        (b'{"number": 7}', "application/vnd.api+json"),
        (b'{"number": 7}', "text/json"),
        (b'{"number": 7}', "application/json, text/plain"),
        (b'{"number": 7}', "json"),
        (b'{"number": 7}', ""),
        (b'{"number": 7}', None),
        (b'{"number": "x"}', JSON),
        (b"{}", JSON),
        (b"[]", JSON),
        (b"null", JSON),
        (b"", JSON),
        (b"", None),
        (b'{"number": 1, "number": 2}', JSON),
    ],
)
async def test_every_body_is_answered_as_by_fastapis_own_route(content: bytes, content_type: str | None) -> None:
    ours = await answer(app(JsonRoute), content, content_type)
    assert ours == await answer(app(object), content, content_type)


@pytest.mark.parametrize(
    "content",
    [
        b'{"number": ',
        b'{"number": 7}}',
        b"\xff\xfe\xff",
        b'{"number": "\xff"}',
        b"[" * 200,
        b'{"number": NaN}',
        b'{"number": 1e999}',
        b'{"number": ' + b"9" * 5000 + b"}",
        b'{"number": 7'.ljust(MAX_INLINE_BYTES) + b"x}",
    ],
    ids=range(9),
)
async def test_what_is_no_json_is_refused_with_its_place(content: bytes) -> None:
    status, text = await answer(app(JsonRoute), content, JSON)
    assert status == 400
    assert json.loads(text)["error"]["message"].startswith("The body is not valid JSON: ")


async def test_a_body_may_begin_with_a_byte_order_mark() -> None:
    assert await answer(app(JsonRoute), b'\xef\xbb\xbf{"number": 7}', JSON) == (200, "7 more")


async def test_a_long_body_is_read_as_a_short_one_is() -> None:
    assert await answer(app(JsonRoute), b'{"number": 7}'.ljust(2 * MAX_INLINE_BYTES), JSON) == (200, "7 more")


@pytest.mark.parametrize(("size", "is_beside"), [(100, False), (2 * MAX_INLINE_BYTES, True)])
async def test_a_long_body_is_converted_beside_the_event_loop(size: int, is_beside: bool) -> None:
    router = APIRouter(route_class=JsonRoute)
    threads: list[int] = []

    @router.post("/it", response_model=None)
    async def it(_: Body, http: Request) -> Response:
        threads.append(await RequestBody.of(http.scope).converted(threading.get_ident))
        return PlainTextResponse("")

    served = FastAPI()
    served.add_middleware(BodyIntake, memory=RequestMemory(1 << 30))
    served.router.routes.extend(router.routes)
    assert (await answer(served, b'{"number": 7}'.ljust(size), JSON))[0] == 200
    assert (threads[0] != threading.get_ident()) is is_beside


def test_the_endpoint_is_described_as_fastapis_own_route_is() -> None:
    assert app(JsonRoute).openapi() == app(object).openapi()


@pytest.mark.parametrize(
    ("value", "number", "what"),
    [
        (b"1", MAX_VALUES + 1, "1,000,000 values"),
        (b"[1]", MAX_LISTS, "50,000 lists"),
        (b'"a"', MAX_VALUES + 1, "1,000,000 values"),
        (b"{}", MAX_OBJECTS, "50,000 objects"),
        (b'{"a": "}"}', MAX_OBJECTS, "50,000 objects"),
        (b'{"a":1,"b":2,"c":3}', MAX_OBJECTS - 1, "100,000 fields"),
    ],
)
async def test_a_body_of_very_many_values_is_refused_before_it_is_read(value: bytes, number: int, what: str) -> None:
    body = b'{"number": 7, "more": [' + b",".join([value] * number) + b"]}"
    status, text = await answer(app(JsonRoute), body, JSON)
    assert status == 400
    assert f"more than {what} in it" in text


async def test_commas_and_brackets_of_texts_are_no_values() -> None:
    text = json.dumps(', [{ "\\' * MAX_VALUES).encode()
    assert await answer(app(JsonRoute), b'{"number": 7, "more": ' + text + b"}", JSON) == (200, "7 more")


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (rb'"\ud83d\ude00 \ud800"', "\U0001f600 \ufffd"),
        (rb'"\ude00\ud83d"', "\ufffd\ufffd"),
        (b'"\xed\xa0\x80"', "\ufffd"),
        (rb'{"\udc00": [1.5, null]}', {"\ufffd": [1.5, None]}),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\\ud800"', "\\ud800"),
    ],
)
async def test_halves_of_characters_are_replaced_since_no_answer_can_repeat_them(body: bytes, read: object) -> None:
    router = APIRouter(route_class=JsonRoute)
    seen: list[object] = []

    @router.post("/it", response_model=None)
    async def it(body: Annotated[Any, fastapi.Body()], _: Request) -> Response:
        seen.append(body)
        return PlainTextResponse("")

    served = FastAPI()
    served.add_middleware(BodyIntake, memory=RequestMemory(1 << 30))
    served.router.routes.extend(router.routes)
    assert (await answer(served, body, JSON))[0] == 200
    assert seen == [read]
