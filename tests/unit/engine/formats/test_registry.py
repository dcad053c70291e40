"""The format of a model is told from its chat template."""

from __future__ import annotations

import pytest

from modelyard.engine.formats.families.generic import instructions
from modelyard.engine.formats.reasoning import REASONING
from modelyard.engine.formats.registry import FORMATS, control_tokens, format_of
from support.templates import templates
from unit.engine.formats.recorded import NOW, WEATHER

# The lines of published templates that tell them apart.
TEMPLATES = {
    "Qwen 3": (
        "hermes",
        '<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call><|im_end|>',
    ),
    "Qwen 3 Coder": (
        "qwen3-coder",
        "<tool_call>\\n<function=example_function_name>\\n<parameter=example_parameter_1>\\nvalue_1\\n</parameter>",
    ),
    "Llama 3.1": (
        "llama3",
        '{{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }} {%- if builtin_tools %}{{- "<|python_tag|>" + '
        'tool_call.name + ".call(" }}{{- \'{"name": "\' + tool_call.name + \'", \' }}{{- \'"parameters": \' }}',
    ),
    "Mistral 7B v0.3": ("mistral", '{{- "[TOOL_CALLS] [" }}{%- set out = tool_call.function|tojson %}'),
    "Mistral Small 3.2": ("mistral-call-id", "{{- '[TOOL_CALLS]' + name + '[CALL_ID]' + id + '[ARGS]' + args }}"),
    "Ministral 3": ("mistral-args", "{{- '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}"),
    "Gemma 4": ("gemma", "{{- '<|tool_call>call:' + function['name'] + '{' -}} {{- '<|\"|>' + argument + '<|\"|>' -}}"),
    "FunctionGemma": ("function-gemma", "{{- '<start_function_call>call:' + name -}}<escape>"),
    "Gemma 3": ("generic", "{{ '<start_of_turn>' + role + '\\n' }}"),
    "DeepSeek R1": (
        "deepseek",
        "'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + name + '\\n```json\\n'",
    ),
    "DeepSeek V3.1": (
        "deepseek-v3.1",
        "{{'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'+ name + '<｜tool▁sep｜>' + arguments}}",
    ),
    "GLM 4.5": (
        "glm",
        "<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>\n<arg_value>{arg-value-1}</arg_value>",
    ),
    "Kimi K2": ("kimi-k2", "<|tool_calls_section_begin|>{%- for tool_call in tool_calls -%}<|tool_call_begin|>"),
    "gpt-oss": ("harmony", '{{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}'),
    "Phi 4 mini": ("phi", "{{ '<|tool|>' + tools + '<|/tool|>' }} <|tool_call|>{\"name\": \"foo\"}<|/tool_call|>"),
    "Granite 3.3": ("granite", "<|start_of_role|>system<|end_of_role|> When a tool is required, write <|tool_call|>"),
    "Granite 4": ("hermes", '<|start_of_role|>system<|end_of_role|> <tool_call>\\n{\\"name\\": <function-name>}'),
    "Llama 4": ("llama4", '{{- "<|header_start|>assistant<|header_end|>" }}{{- "<|python_start|>" }}'),
    "OLMo 3": ("olmo3", "<functions>{{ tools | tojson }}</functions> {{ '<function_calls>' }}"),
    "DeepSeek 4.1": ("deepseek-v4.1", "{{ '<｜DSML｜ calls>' }}"),
    "SmolLM 2": ("generic", "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"),
}


@pytest.mark.parametrize(("name", "template"), TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_tells_its_format(name: str, template: str) -> None:
    assert format_of(template).name == name


PUBLISHED = {
    "Apertus-8B-Instruct": "apertus",
    "Apriel-1.6-15b-Thinker-fixed": "apriel",
    "ByteDance-Seed-OSS": "seed",
    "Cohere2MoE": "command",
    "CohereForAI-c4ai-command-r-plus-tool_use": "command-r",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": "command",
    "GigaChat3-10B-A1.8B": "gigachat-3",
    "GigaChat3.1-10B-A1.8B": "gigachat",
    "Kimi-K2-Thinking": "kimi-k2",
    "Kimi-K3": "kimi-k3",
    "LFM2-8B-A1B": "lfm2",
    "LFM2.5-8B-A1B": "lfm2",
    "LFM2.5-Instruct": "lfm2",
    "MiMo-VL": "hermes",
    "MiniMax-M1": "minimax-m1",
    "MiniMax-M2": "minimax-m2",
    "MiniMax-M3": "minimax-m3",
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": "qwen3-coder",
    "NVIDIA-Nemotron-Nano-v2": "nemotron",
    "Qwen3.5-4B": "qwen3-coder",
    "Spark2.5": "glm",
    "StepFun3.5-Flash": "qwen3-coder",
    "deepseek-ai-DeepSeek-V3.2": "deepseek-v3.2",
    "deepseek-ai-DeepSeek-V4": "deepseek-v4",
    "fireworks-ai-llama-3-firefunction-v2": "phi",
    "meetkai-functionary-medium-v3.1": "llama3",
    "meetkai-functionary-medium-v3.2": "functionary",
    "muse-glimmer": "muse",
    "openai-gpt-oss-120b": "harmony",
    "openbmb-MiniCPM5-1B": "minicpm",
    "tencent-Hy3": "hunyuan",
    "unsloth-Apriel-1.5": "apriel",
    "upstage-Solar-Open-100B": "solar",
}
# Templates whose models have no format of their own, or show none, so that they get instructions.
GENERIC = {
    "HuggingFaceTB-SmolLM3-3B",
    "google-gemma-2-2b-it",
    "llama-cpp-rwkv-world",
    "microsoft-Phi-3.5-mini-instruct",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_template_tells_its_format(name: str) -> None:
    assert format_of(templates()[name]).name == PUBLISHED[name]


def test_no_other_published_template_is_generic() -> None:
    assert {name for name, source in templates().items() if format_of(source).name == "generic"} == GENERIC


def test_every_format_is_told_by_some_template() -> None:
    assert {name for name, _ in TEMPLATES.values()} | set(PUBLISHED.values()) == set(FORMATS)


def test_formats_are_known_by_their_names() -> None:
    assert all(name == of.name for name, of in FORMATS.items())


@pytest.mark.parametrize("of", FORMATS.values(), ids=FORMATS)
def test_no_opener_begins_another(of: object) -> None:
    openers = getattr(of, "openers", ())
    assert not [(a, b) for a in openers for b in openers if a != b and b.startswith(a)]


def test_the_engine_is_told_which_control_tokens_are_text() -> None:
    assert control_tokens(FORMATS["hermes"], REASONING["think"]) == {
        "<tool_call>",
        "</tool_call>",
        "<think>",
        "</think>",
    }
    assert "<|channel|>" in control_tokens(FORMATS["harmony"], None)
    assert {"<|channel>", "<channel|>"} < control_tokens(FORMATS["gemma"], REASONING["gemma"])


def test_a_model_without_a_format_is_told_of_its_tools() -> None:
    text = instructions((WEATHER, NOW))
    assert '"name": "get_weather"' in text
    assert '"city": {"type": "string"}' in text
    assert '{"name": "function_name", "arguments": {"argument": "value"}}' in text
