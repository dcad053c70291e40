"""Bodies are read as FastAPI reads them, and refused in the same words."""

from __future__ import annotations

import json
from typing import Annotated, Any

import fastapi
import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel

from modelyard.api import errors
from modelyard.api.json_route import MOST_VALUES, JsonRoute


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
    errors.install(app)
    app.router.routes.extend(router.routes)
    return app


async def answer(app: FastAPI, content: bytes, content_type: str | None) -> tuple[int, str]:
    headers = {"x-more": "more"} | ({} if content_type is None else {"content-type": content_type})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
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
        (b" ", JSON),
        (b'{"number": ', JSON),
        (b'{"number": 7}}', JSON),
        (b"\xff\xfe\xff", JSON),
        (b'{"number": "\xff"}', JSON),
        (b"[" * 100_000, JSON),
        (b'{"number": NaN}', JSON),
        (b'{"number": 1, "number": 2}', JSON),
    ],
)
async def test_every_body_is_answered_as_by_fastapis_own_route(content: bytes, content_type: str | None) -> None:
    ours = await answer(app(JsonRoute), content, content_type)
    assert ours == await answer(app(object), content, content_type)


def test_the_endpoint_is_described_as_fastapis_own_route_is() -> None:
    assert app(JsonRoute).openapi() == app(object).openapi()


@pytest.mark.parametrize("value", [b"{}", b"[1]", b'"a"', b'{"a": "b"}'])
async def test_a_body_of_very_many_values_is_refused_before_it_is_read(value: bytes) -> None:
    body = b'{"number": 7, "more": [' + b",".join([value] * MOST_VALUES) + b"]}"
    status, text = await answer(app(JsonRoute), body, JSON)
    assert (status, "more than 1,000,000 values" in text) == (400, True)


async def test_commas_and_brackets_of_texts_are_no_values() -> None:
    text = json.dumps(', [{ "\\' * MOST_VALUES).encode()
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
    served.router.routes.extend(router.routes)
    assert (await answer(served, body, JSON))[0] == 200
    assert seen == [read]
