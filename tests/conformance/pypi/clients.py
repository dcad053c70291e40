"""What programs in Python do with libraries above OpenAI's client. Prints one JSON object with what failed.

    python clients.py http://127.0.0.1:1234/v1

The libraries need versions of OpenAI's client that exclude the one of the tests, so this runs in an environment of its
own, with the versions of clients.lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import traceback
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict

BASE_URL = sys.argv[1]
KEY = "unused"
MODEL = "smollm2"
QUESTION = "What is the weather in Rome?"
CITIES = ("Oslo", "Rome")
MESSAGES = [{"role": "user", "content": QUESTION}]


class Weather(BaseModel):
    """Tell the weather of a city."""

    model_config = ConfigDict(extra="forbid")

    city: Literal["Oslo", "Rome"]


def litellm_streams_what_it_answers_whole() -> None:
    import litellm

    asked = {"model": f"openai/{MODEL}", "api_base": BASE_URL, "api_key": KEY, "messages": MESSAGES}
    whole = litellm.completion(**asked, max_tokens=8, temperature=0)
    chunks = litellm.completion(**asked, max_tokens=8, temperature=0, stream=True)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert streamed == whole.choices[0].message.content
    assert (whole.choices[0].finish_reason, whole.usage.completion_tokens) == ("length", 8)


def litellm_translates_anthropics_dialect() -> None:
    import litellm

    answer = litellm.completion(
        model=f"anthropic/{MODEL}",
        api_base=BASE_URL.removesuffix("/v1"),
        api_key=KEY,
        messages=[{"role": "system", "content": "Be short."}, *MESSAGES],
        max_tokens=8,
    )
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 8


def litellm_calls_a_tool() -> None:
    import litellm

    tool = {"type": "function", "function": {"name": "weather", "parameters": Weather.model_json_schema()}}
    answer = litellm.completion(
        model=f"openai/{MODEL}",
        api_base=BASE_URL,
        api_key=KEY,
        messages=MESSAGES,
        tools=[tool],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        max_tokens=40,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments)["city"] in CITIES


def litellm_knows_a_model_that_is_not_there() -> None:
    import litellm

    with contextlib.suppress(litellm.NotFoundError):
        litellm.completion(model="openai/nobody", api_base=BASE_URL, api_key=KEY, messages=MESSAGES, max_retries=0)
        raise AssertionError("it was answered")


def instructor_reads_an_object(mode: str) -> None:
    import instructor
    import openai

    client = instructor.from_openai(openai.OpenAI(base_url=BASE_URL, api_key=KEY), mode=instructor.Mode[mode])
    weather = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, response_model=Weather, max_tokens=60, temperature=0, max_retries=0
    )
    assert weather.city in CITIES


def instructor_reads_an_object_as_it_is_streamed() -> None:
    import instructor
    import openai

    client = instructor.from_openai(openai.OpenAI(base_url=BASE_URL, api_key=KEY), mode=instructor.Mode.JSON_SCHEMA)
    partials = list(
        client.chat.completions.create_partial(model=MODEL, messages=MESSAGES, response_model=Weather, max_tokens=60)
    )
    assert partials[-1].city in CITIES


async def an_agent_of_pydantic_ai_has_an_output_type(*, streams: bool) -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=BASE_URL, api_key=KEY))
    agent = Agent(model, output_type=Weather, model_settings={"max_tokens": 60, "temperature": 0}, retries=0)
    if not streams:
        result = await agent.run(QUESTION)
        assert result.output.city in CITIES
        assert result.usage.output_tokens > 0
        return
    async with agent.run_stream(QUESTION) as stream:
        assert (await stream.get_output()).city in CITIES


async def an_agent_of_pydantic_ai_answers_in_text_over_responses() -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIResponsesModel(MODEL, provider=OpenAIProvider(base_url=BASE_URL, api_key=KEY))
    agent = Agent(model, instructions="Be short.", model_settings={"max_tokens": 16})
    first = await agent.run("Hello!")
    second = await agent.run("And again?", message_history=first.all_messages())
    assert first.output
    assert second.output


async def an_agent_of_openai_agents_calls_a_function(*, responses: bool) -> None:
    import agents
    import openai

    agents.set_tracing_disabled(True)
    client = openai.AsyncOpenAI(base_url=BASE_URL, api_key=KEY)
    kind = agents.OpenAIResponsesModel if responses else agents.OpenAIChatCompletionsModel
    asked: list[str] = []

    @agents.function_tool
    def get_weather(city: Literal["Oslo", "Rome"]) -> str:
        """Tell the weather of a city."""
        asked.append(city)
        return "Sunny."

    agent = agents.Agent(
        "weather",
        instructions="Be short.",
        model=kind(MODEL, client),
        tools=[get_weather],
        model_settings=agents.ModelSettings(tool_choice="required", max_tokens=40, temperature=0),
    )
    result = agents.Runner.run_streamed(agent, QUESTION, max_turns=3)
    async for _ in result.stream_events():
        pass
    assert asked
    assert set(asked) <= set(CITIES)
    assert isinstance(result.final_output, str)


def llama_index_chats_streams_and_predicts() -> None:
    from llama_index.core.llms import ChatMessage
    from llama_index.core.prompts import PromptTemplate
    from llama_index.llms.openai_like import OpenAILike

    model = OpenAILike(
        model=MODEL,
        api_base=BASE_URL,
        api_key=KEY,
        is_chat_model=True,
        is_function_calling_model=True,
        max_tokens=40,
        temperature=0,
    )
    messages = [ChatMessage(role="user", content=QUESTION)]
    whole = model.chat(messages)
    *_, last = model.stream_chat(messages)
    assert last.message.content == whole.message.content
    assert model.complete("Once upon a time").text
    weather = model.structured_predict(Weather, PromptTemplate("What is the weather in {city}?"), city="Rome")
    assert weather.city in CITIES


TESTS: dict[str, Callable[[], object]] = {
    "litellm: an answer is streamed as it is answered whole": litellm_streams_what_it_answers_whole,
    "litellm: Anthropic's dialect": litellm_translates_anthropics_dialect,
    "litellm: a tool is called": litellm_calls_a_tool,
    "litellm: a model that is not there": litellm_knows_a_model_that_is_not_there,
    "instructor: tools": lambda: instructor_reads_an_object("TOOLS"),
    "instructor: JSON schema": lambda: instructor_reads_an_object("JSON_SCHEMA"),
    "instructor: partial objects": instructor_reads_an_object_as_it_is_streamed,
    "pydantic-ai: an output type": lambda: asyncio.run(an_agent_of_pydantic_ai_has_an_output_type(streams=False)),
    "pydantic-ai: a streamed output type": lambda: asyncio.run(
        an_agent_of_pydantic_ai_has_an_output_type(streams=True)
    ),
    "pydantic-ai: responses": lambda: asyncio.run(an_agent_of_pydantic_ai_answers_in_text_over_responses()),
    "openai-agents: chats": lambda: asyncio.run(an_agent_of_openai_agents_calls_a_function(responses=False)),
    "openai-agents: responses": lambda: asyncio.run(an_agent_of_openai_agents_calls_a_function(responses=True)),
    "llama-index: a chat model": llama_index_chats_streams_and_predicts,
}


def main() -> None:
    failures: dict[str, str] = {}
    for name, test in TESTS.items():
        try:
            test()
        except Exception:
            failures[name] = traceback.format_exc()
    print(json.dumps({"run": len(TESTS), "failures": failures}))


if __name__ == "__main__":
    main()
