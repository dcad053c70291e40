"""Any conversation is written out by any template, with all that was said, once, in order."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.engine.chat.capabilities import capabilities_of
from modelyard.engine.chat.chat_format import ChatFormat
from modelyard.engine.chat.template import ChatTemplate
from modelyard.engine.chat.template_processes import TemplateProcesses
from modelyard.engine.formats.messages import turns_of
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Chat
from support.templates import templates

Messages = list[dict[str, Any]]

LLAMA_2 = """{%- if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}
{%- set system = messages[0].content %}
{%- else %}{% set rest = messages %}{% set system = '' %}{% endif %}
{%- for message in rest %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{%- if message['role'] == 'user' %}
{{- '[INST] ' + (system if loop.first else '') + message.content.strip() + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}{{ ' ' + message.content.strip() + ' ' + eos_token }}{% endif %}
{%- endfor %}"""
CHATML = """{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

# Needs variables that only its own program knows.
UNUSABLE: Final = {"fireworks-ai-llama-3-firefunction-v2"}
SOURCES: Final = {
    name: source
    for name, source in (templates() | {"llama-2": LLAMA_2, "chatml": CHATML}).items()
    if name not in UNUSABLE
}
# Nearly the same as another one of their family.
SIBLINGS: Final = {
    *("Apriel-1.6-15b-Thinker-fixed", "GLM-4.7-Flash", "GigaChat3.1-10B-A1.8B", "Kimi-K2-Instruct", "LFM2-8B-A1B"),
    *("LFM2.5-Instruct", "MiniMax-M3", "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "deepseek-ai-DeepSeek-V4"),
    *("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "google-gemma-4-31B-it-interleaved", "ibm-granite-granite-4.1"),
    *("meetkai-functionary-medium-v3.1", "meta-llama-Llama-3.2-3B-Instruct", "meta-llama-Llama-3.3-70B-Instruct"),
    *("poolside-Laguna-S-2.1", "poolside-Laguna-XS-2.1", "deepseek-ai-DeepSeek-V4-Flash-0731", "moonshotai-Kimi-K2"),
    *("llama-cpp-rwkv-world", "llama-cpp-deepseek-r1", "Spark2.5", "inclusionai-ling-3.0-flash", "MiMo-VL"),
    *("muse-glimmer", "unsloth-mistral-Devstral-Small-2507"),
}
STRICT: Final = (
    *("mistralai-Mistral-Nemo-Instruct-2407", "openai-gpt-oss-120b", "google-gemma-2-2b-it", "Qwen3.5-4B"),
    *("mistralai-Ministral-3-14B-Reasoning-2512", "llama-2"),
)
PROCESSES = TemplateProcesses()
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "A city."}},
            "required": ["city"],
        },
    },
}


@cache
def chat_format(source: str) -> ChatFormat:
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>", processes=PROCESSES)
    return ChatFormat(template, lambda _: None)


def turns(pattern: str) -> Messages:
    """The turns of a pattern: S, U and A say a word, C calls, R is the result of that call, B is text with a call."""
    messages: Messages = []
    for index, letter in enumerate(pattern):
        word = f"word{index:02}x"
        call_id = f"call_{pattern[:index].count('C') + pattern[:index].count('B'):08}"
        next_id = f"call_{pattern[:index].count('C') + pattern[:index].count('B') + 1:08}"
        call = {"id": next_id, "type": "function", "function": {"name": "get_weather", "arguments": ""}}
        call["function"]["arguments"] = json.dumps({"city": f"{word}c"})  # type: ignore[index]
        match letter:
            case "S" | "U" | "A":
                role = {"S": "system", "U": "user", "A": "assistant"}[letter]
                messages.append({"role": role, "content": word})
            case "C":
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            case "B":
                messages.append({"role": "assistant", "content": word, "tool_calls": [call]})
            case "R":
                messages.append({"role": "tool", "tool_call_id": call_id, "content": word})
    return messages


def parallel() -> Messages:
    calls = [
        {
            "id": f"c{n}",
            "type": "function",
            "function": {"name": "get_weather", "arguments": f'{{"city": "word0{n}xc"}}'},
        }
        for n in (1, 2)
    ]
    results = [{"role": "tool", "tool_call_id": f"c{n}", "content": f"word0{n + 2}x"} for n in (1, 2)]
    answer = [{"role": "assistant", "content": "word05x"}, {"role": "user", "content": "word06x"}]
    return [{"role": "user", "content": "word00x"}, {"role": "assistant", "tool_calls": calls}, *results, *answer]


PATTERNS: Final = (
    *("U", "SU", "UAU", "SUAU", "SUU", "SSU", "UU", "UAAU", "AU", "SAU", "UAUU", "SUASU", "USU", "UAS", "S", "A"),
    *("UCR", "SUCRAU", "UCRU", "UBR", "UCRBRAU", "UBRBRU", "UCU", "UCRSU", "UCRCRAU", "UACRAU", "AUCR"),
    *("RU", "SRAU", "URAU", "CRU", "UAR", "UCAU", "CRAU", "UCRR"),
)
HISTORIES: Final = {pattern: turns(pattern) for pattern in PATTERNS} | {"parallel": parallel()}


def said(messages: Messages) -> list[str]:
    """The words of a conversation in the order in which they were said, those of calls behind the text before them."""
    words: list[str] = []
    for message in messages:
        words += [message["content"]] if message.get("content") else []
        words += [json.loads(call["function"]["arguments"])["city"] for call in message.get("tool_calls", ())]
    return words


def found(prompt: str) -> list[str]:
    return re.findall(r"word\d\dxc?", prompt)


def is_complete(messages: Messages, prompt: str) -> bool:
    """Whether a prompt has all words, once; those of other turns than system ones in order."""
    systems = {message["content"] for message in messages if message["role"] == "system"}
    words, prompted = said(messages), found(prompt)
    if messages == HISTORIES["parallel"]:
        # A template that takes one call a turn gets each with its result.
        return sorted(words) == sorted(prompted)
    in_order = [word for word in words if word not in systems] == [word for word in prompted if word not in systems]
    return in_order and sorted(words) == sorted(prompted)


def tools_for(messages: Messages) -> tuple[Mapping[str, Any], ...]:
    return (TOOL,) if any("tool_calls" in message or message["role"] == "tool" for message in messages) else ()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in SIBLINGS else name for name in SOURCES]
)
def test_every_template_writes_out_every_history(name: str) -> None:
    written = chat_format(SOURCES[name])
    prompts = {
        pattern: written.write(Chat(tuple(messages), tools_for(messages))).text
        for pattern, messages in HISTORIES.items()
    }
    assert {pattern: prompt for pattern, prompt in prompts.items() if not is_complete(HISTORIES[pattern], prompt)} == {}


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(STRICT), pattern=st.text("SUACBR", min_size=1, max_size=8))
def test_so_do_those_that_refuse_most_with_any_history(name: str, pattern: str) -> None:
    messages = turns(pattern)
    prompt = chat_format(SOURCES[name]).write(Chat(tuple(messages), (TOOL,))).text
    assert is_complete(messages, prompt)


def test_calls_in_a_history_need_no_tools_in_the_request() -> None:
    for name in ("Qwen-Qwen3-0.6B", "NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "google-gemma-2-2b-it", "Kimi-K3"):
        written = chat_format(SOURCES[name])
        for pattern in ("UCRAU", "UBR"):
            assert is_complete(turns(pattern), written.write(Chat(tuple(turns(pattern)))).text), (name, pattern)


@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        (
            "Qwen-Qwen2.5-7B-Instruct",
            ("SUAU", "SSU", "UU", "UAAU", "AU", "SUASU", "UCRAU", "UCRU", "UBR", "RU", "parallel"),
        ),
        ("google-gemma-2-2b-it", ("U", "UAU")),
        ("meta-llama-Llama-3.1-8B-Instruct", ("AU", "UU", "SUAU", "UCRAU")),
        ("llama-2", ("U", "SU", "SUAU")),
        ("mistralai-Ministral-3-14B-Reasoning-2512", ("SUAU", "UCRAU", "UBR", "UCRCRAU", "parallel")),
        ("openai-gpt-oss-120b", ("SUAU", "UU", "UCRAU")),
        ("Qwen3-Coder", ("SUAU", "UCRAU", "UCRU", "UBR", "parallel")),
    ],
)
def test_a_conversation_that_the_template_takes_is_not_changed(name: str, patterns: tuple[str, ...]) -> None:
    template = ChatTemplate(SOURCES[name], bos_token="<s>", eos_token="</s>", processes=PROCESSES)
    written = ChatFormat(template, lambda _: None)
    for pattern in patterns:
        messages = HISTORIES.get(pattern) or turns(pattern)
        tools = tools_for(messages)
        plain = [turn.message for turn in turns_of(messages, [])]
        rendered = written.write(Chat(tuple(messages), tools))
        assert (rendered.text, rendered.repairs) == (template.render(plain, tools), ()), pattern


@pytest.mark.parametrize(
    ("name", "pattern", "repairs"),
    [
        ("google-gemma-2-2b-it", "SU", ("moved messages[0] from the system to the user",)),
        ("google-gemma-2-2b-it", "UU", ("merged messages[0] and messages[1]",)),
        ("google-gemma-2-2b-it", "UUU", ("merged messages[0] to messages[2]",)),
        ("google-gemma-2-2b-it", "AU", ("put an empty turn of the user before messages[0]",)),
        (
            "google-gemma-2-2b-it",
            "UCR",
            ("wrote the calls of messages[1] as text", "wrote the result in messages[2] as text"),
        ),
        ("llama-2", "UAS", ("moved messages[2] from the system to the user",)),
        ("mistralai-Mistral-Nemo-Instruct-2407", "UCRU", ("put an empty turn of the assistant before messages[3]",)),
        ("mistralai-Mistral-Nemo-Instruct-2407", "UBR", ("split the text of messages[1] from its calls",)),
        ("openai-gpt-oss-120b", "RU", ("wrote the result in messages[0] as text",)),
        ("meta-llama-Llama-3.1-8B-Instruct", "parallel", ("split the calls of messages[1]",)),
        ("Qwen3.5-4B", "S", ("added an empty turn of the user",)),
    ],
)
def test_repairs_are_told(name: str, pattern: str, repairs: tuple[str, ...]) -> None:
    messages = HISTORIES.get(pattern) or turns(pattern)
    assert chat_format(SOURCES[name]).write(Chat(tuple(messages), tools_for(messages))).repairs == repairs


def test_no_more_repairs_are_told_than_fit_into_a_header() -> None:
    *_, last = chat_format(SOURCES["google-gemma-2-2b-it"]).write(Chat(tuple(turns("UUA" * 30)))).repairs
    assert last == "and 14 more"


def test_calls_as_text_are_what_the_models_answers_are() -> None:
    prompt = chat_format(SOURCES["ibm-granite-granite-3.3-2B-Instruct"]).write(Chat(tuple(turns("UCR")), (TOOL,))).text
    assert '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "word01xc"}}]' in prompt


def test_ids_of_calls_are_those_that_mistrals_templates_take() -> None:
    prompt = (
        chat_format(SOURCES["mistralai-Mistral-Nemo-Instruct-2407"]).write(Chat(tuple(turns("UCRAU")), (TOOL,))).text
    )
    (called, answered) = re.findall(r'"(?:id|call_id)": "(\w{9})"', prompt)
    assert called == answered


@pytest.mark.parametrize(("name", "field"), [("openai-gpt-oss-120b", "analysis"), ("Qwen-Qwen3-0.6B", "<think>")])
def test_reasoning_before_a_call_is_kept_however_the_client_names_it(name: str, field: str) -> None:
    written = chat_format(SOURCES[name])
    prompts = set()
    for sent in ("reasoning_content", "reasoning", "thinking"):
        user, call, result = turns("UCR")
        prompts.add(written.write(Chat((user, {**call, sent: "since"}, result), (TOOL,))).text)
    (prompt,) = prompts
    assert prompt.count("since") == 1
    assert prompt.index(field) < prompt.index("since") < prompt.index("word01xc")


def test_a_refusal_that_no_repair_helps_against_is_the_clients_error() -> None:
    written = chat_format("{{ raise_exception('never') }}")
    with pytest.raises(InvalidRequest, match="never"):
        written.write(Chat(tuple(turns("UCR")), (TOOL,)))


def test_a_template_is_tried_once() -> None:
    processes = TemplateProcesses()
    template = ChatTemplate(SOURCES["chatml"], bos_token="<s>", eos_token="</s>", processes=processes)
    found_first = capabilities_of(template)
    # From here on nothing can be rendered.
    processes.close()
    assert capabilities_of(template) == found_first
