"""An answer goes on from the end of the last message, whatever the template does with that."""

from __future__ import annotations

from typing import Any, Final

import pytest

from modelyard.engine.chat.chat_format import ChatFormat, parser_of
from modelyard.engine.chat.template import ChatTemplate
from modelyard.engine.chat.template_processes import TemplateProcesses
from modelyard.protocol.deltas import fold
from modelyard.protocol.prompts import Chat
from support.templates import templates

PROCESSES: Final = TemplateProcesses()
SOURCES: Final = {
    name: source for name, source in templates().items() if name != "fireworks-ai-llama-3-firefunction-v2"
}
FAMILIES: Final = (
    *("Qwen-Qwen3-0.6B", "Qwen-Qwen2.5-7B-Instruct", "Qwen3.5-4B", "openai-gpt-oss-120b", "google-gemma-2-2b-it"),
    *("google-gemma-4-31B-it", "deepseek-ai-DeepSeek-V3.1", "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "GLM-4.6"),
    *("mistralai-Mistral-Nemo-Instruct-2407", "mistralai-Ministral-3-14B-Reasoning-2512", "Kimi-K2-Thinking"),
    *("meta-llama-Llama-3.1-8B-Instruct", "ByteDance-Seed-OSS", "ibm-granite-granite-4.0", "MiniMax-M2"),
    *("CohereForAI-c4ai-command-r7b-12-2024-tool_use", "HuggingFaceTB-SmolLM3-3B", "microsoft-Phi-3.5-mini-instruct"),
    *("NVIDIA-Nemotron-Nano-v2", "LFM2-8B-A1B", "tencent-Hy3", "upstage-Solar-Open-100B", "Reka-Edge", "Kimi-K3"),
    *("Apertus-8B-Instruct", "deepseek-ai-DeepSeek-V3.2", "NousResearch-Hermes-3-Llama-3.1-8B-tool_use"),
)
REASONERS: Final = (
    *("Qwen-Qwen3-0.6B", "Qwen-QwQ-32B", "openai-gpt-oss-120b", "deepseek-ai-DeepSeek-V3.1", "Kimi-K2-Thinking"),
    *("GLM-4.6", "ByteDance-Seed-OSS", "MiniMax-M2", "mistralai-Ministral-3-14B-Reasoning-2512"),
)
USER: Final = {"role": "user", "content": "What is six times seven?"}
TOOL: Final = {
    "type": "function",
    "function": {"name": "f", "description": "Does it.", "parameters": {"type": "object", "properties": {}}},
}


def chat_format(name: str) -> ChatFormat:
    source = SOURCES.get(name, name)
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>", processes=PROCESSES)
    return ChatFormat(template, lambda _: None)


def continued(*messages: dict[str, Any], tools: bool = False) -> Chat:
    return Chat((USER, *messages), (TOOL,) if tools else (), continues=True)


def assistant(content: str | None = "The answer is", **more: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_prompt_ends_with_the_text_and_the_answer_with_what_follows_it(name: str) -> None:
    written = chat_format(name)
    for tools in (False, True):
        chat = continued(assistant(), tools=tools)
        rendered = written.write(chat)
        assert rendered.text.endswith("The answer is")
        assert rendered.text.count("The answer is") == 1
        assert rendered.output_format is None or not rendered.output_format.is_open
        if rendered.output_format is not None:
            parser = parser_of(rendered.output_format, chat)
            assert fold([*parser.push(" 42"), *parser.push("."), *parser.finish()]).content == " 42."


@pytest.mark.parametrize("name", REASONERS)
def test_an_answer_may_go_on_within_its_reasoning(name: str) -> None:
    written = chat_format(name)
    prompts = set()
    for begun in (assistant(None, reasoning_content="Six times"), assistant("", thinking="Six times")):
        rendered = written.write(continued(begun))
        assert rendered.output_format is not None
        assert rendered.output_format.is_open
        prompts.add(rendered.text)
    (prompt,) = prompts
    assert prompt.endswith("Six times")
    own = written.reasoning
    assert own is not None
    parser = parser_of(rendered.output_format, continued(begun))
    answer = fold([*parser.push(f" seven.{own.close}"), *parser.finish()])
    assert answer.reasoning == " seven."
    assert answer.content in (None, "")


def test_reasoning_that_was_put_into_the_text_counts_as_reasoning() -> None:
    written = chat_format("Qwen-Qwen3-0.6B")
    inside = written.write(continued(assistant("<think>\nSix times")))
    assert inside.text.endswith("<|im_start|>assistant\n<think>\nSix times")
    assert inside.output_format is not None
    assert inside.output_format.is_open
    behind = written.write(continued(assistant("<think>\nSix times seven.\n</think>\n\nThe answer is")))
    assert behind.text.endswith("<think>\nSix times seven.\n</think>\n\nThe answer is")
    assert behind.output_format is not None
    assert not behind.output_format.is_open


def test_a_call_may_follow_the_text() -> None:
    chat = continued(assistant("I look."), tools=True)
    rendered = chat_format("Qwen-Qwen3-0.6B").write(chat)
    assert rendered.output_format is not None
    parser = parser_of(rendered.output_format, chat)
    call = '\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    answer = fold([*parser.push(call), *parser.finish()])
    assert [call.name for call in answer.tool_calls] == ["f"]


def test_an_object_behind_text_is_no_call() -> None:
    chat = continued(assistant("The JSON is"), tools=True)
    rendered = chat_format("microsoft-Phi-3.5-mini-instruct").write(chat)
    assert rendered.output_format is not None
    parser = parser_of(rendered.output_format, chat)
    answer = fold([*parser.push('{"name": "f", "arguments": {}}'), *parser.finish()])
    assert (answer.content, list(answer.tool_calls)) == ('{"name": "f", "arguments": {}}', [])


def test_white_space_at_the_end_is_kept_where_the_template_trims() -> None:
    source = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert chat_format(source).write(continued(assistant("a \n"))).text.endswith("<assistant>a \n")


@pytest.mark.parametrize(
    "closing",
    [
        "{% if messages[-1].role == 'assistant' %}{{ raise_exception('ends with the assistant') }}{% endif %}",
        "{% if messages[-1].role == 'assistant' %}{% set messages = messages[:-1] %}{% endif %}",
    ],
)
def test_a_template_that_does_not_write_the_last_message_is_helped(closing: str) -> None:
    source = (
        f"{closing}{{% for m in messages %}}<{{{{ m.role }}}}>{{{{ m.content }}}}</>{{% endfor %}}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert chat_format(source).write(continued(assistant())).text.endswith("?</><assistant>The answer is")


def test_reasoning_that_the_template_opens_is_closed_before_text() -> None:
    source = (
        "{% if messages[-1].role == 'assistant' %}{{ raise_exception('no') }}{% endif %}"
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant><think>"
    )
    rendered = chat_format(source).write(continued(assistant()))
    assert rendered.text.endswith("<assistant><think></think>\n\nThe answer is")
    assert rendered.output_format is not None
    assert not rendered.output_format.is_open


def test_nothing_goes_on_from_an_empty_message() -> None:
    written = chat_format("Qwen-Qwen2.5-7B-Instruct")
    assert written.write(continued(assistant(""))).text.endswith("<|im_start|>assistant\n")


def test_an_answer_may_be_all_that_there_is() -> None:
    for name in ("Qwen-Qwen3-0.6B", "google-gemma-2-2b-it", "openai-gpt-oss-120b"):
        assert chat_format(name).write(Chat((assistant(),), continues=True)).text.endswith("The answer is")


def test_no_turn_is_opened_where_the_client_opens_none() -> None:
    written = chat_format("Qwen-Qwen2.5-7B-Instruct")
    assert written.write(Chat((USER,), opens_turn=False)).text.endswith("seven?<|im_end|>\n")
    assert written.write(Chat((USER,), continues=True)).text.endswith("seven?")


def test_a_message_that_is_merged_with_the_one_before_goes_on() -> None:
    prompt = chat_format("google-gemma-2-2b-it").write(continued(assistant("One."), assistant("Two"))).text
    assert prompt.endswith("<start_of_turn>model\nOne.\n\nTwo")
