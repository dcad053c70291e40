"""LangChain's OpenAI client against the real server with real weights, over chats and over responses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import httpx
import pytest
from pydantic import BaseModel, ConfigDict

from support.server import RunningServer

# Imported by the process that runs these tests: others that collect them would wait two seconds for it.
if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

QUESTION = "What is the weather in Rome?"


class Weather(BaseModel):
    """Tell the weather of a city."""

    model_config = ConfigDict(extra="forbid")

    city: Literal["Oslo", "Rome"]


@pytest.fixture(params=[False, True], ids=["chat", "responses"])
def chain(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[ChatOpenAI]:
    from langchain_openai import ChatOpenAI

    with httpx.Client(timeout=60) as http:
        yield ChatOpenAI(
            model="smollm2",
            base_url=f"{server.url}/v1",
            api_key="unused",
            http_client=http,
            max_retries=0,
            max_tokens=40,
            temperature=0,
            use_responses_api=request.param,
        )


def test_a_chat_is_answered_whole_and_streamed(chain: ChatOpenAI) -> None:
    # So short that no word is a near tie.
    short = chain.model_copy(update={"max_tokens": 16})
    whole = short.invoke("Name the days of the week.")
    assert whole.text
    assert 0 < whole.usage_metadata["output_tokens"] <= 16
    assert "".join(chunk.text for chunk in short.stream("Name the days of the week.")) == whole.text


def test_an_agent_calls_reads_the_result_and_answers(chain: ChatOpenAI) -> None:
    from langchain_core.messages import HumanMessage, ToolMessage

    must_call = chain.bind_tools([Weather], tool_choice="any", strict=True, parallel_tool_calls=False)
    called = must_call.invoke(QUESTION)
    (call,) = called.tool_calls
    assert call["name"] == "Weather"
    assert call["args"]["city"] in ("Oslo", "Rome")
    streamed: Any = None
    for chunk in must_call.stream(QUESTION):
        streamed = chunk if streamed is None else streamed + chunk
    assert [made["name"] for made in streamed.tool_calls] == ["Weather"]
    result = ToolMessage("Sunny.", tool_call_id=call["id"])
    answer = chain.bind_tools([Weather]).invoke([HumanMessage(QUESTION), called, result])
    assert answer.text or answer.tool_calls


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_an_answer_is_an_object(chain: ChatOpenAI, method: Any) -> None:
    weather = chain.with_structured_output(Weather, method=method, strict=True).invoke(QUESTION)
    assert weather.city in ("Oslo", "Rome")
