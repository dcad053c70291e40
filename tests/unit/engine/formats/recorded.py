"""Answers as models of each family write them, and what is in them.

Made after the chat templates and model cards that the formats' modules name. ``enforceable`` are those that a grammar
would write, too: calls without text around them, in the template's own spelling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelyard.engine.formats.schema import Tool

WEATHER = Tool(
    "get_weather",
    "The weather of a city.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "metric": {"type": "boolean"},
        },
        "required": ["city"],
        "additionalProperties": False,
    },
)
WRITE = Tool(
    "write_file",
    "",
    {
        "type": "object",
        "properties": {"path": {"type": "string"}, "text": {"type": "string"}, "mode": {"enum": ["new", "append"]}},
        "required": ["path", "text"],
    },
)
SEARCH = Tool(
    "search",
    "",
    {
        "type": "object",
        "properties": {
            "filters": {"type": "object", "properties": {"tags": {"type": "array", "items": {"type": "string"}}}},
            "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "score": {"type": "number"},
        },
    },
)
NOW = Tool("now")
TOOLS = (WEATHER, WRITE, SEARCH, NOW)

PARIS = ("get_weather", {"city": "Paris"})
OSLO = ("get_weather", {"city": "Oslo", "days": 3, "metric": True})


@dataclass(frozen=True)
class Recorded:
    """One answer. inside: its prompt has opened reasoning."""

    of: str
    what: str
    text: str
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    content: str = ""
    reasoning: str = ""
    enforceable: bool = False
    inside: bool = False


HERMES = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
CODER = "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>"
KIMI = (
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
    '{"city": "Paris"}<|tool_call_end|><|tool_calls_section_end|>'
)
SECTION_END = "<｜tool▁calls▁end｜>"
R1 = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
    '{"city": "Paris"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
)
V31 = (
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜>'
    "<｜tool▁calls▁end｜>"
)
GLM = "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>"
GPT_OSS = '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>'
LISTED = '[{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "now", "arguments": {}}]'
LONG_HEADER = "<|channel|>" + "x" * 1100

RECORDED = (
    # Qwen 3 Coder
    Recorded("qwen3-coder", "single", CODER, (PARIS,), enforceable=True),
    Recorded(
        "qwen3-coder",
        "parallel, typed",
        CODER + "\n<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n<parameter=metric>\ntrue\n</parameter>\n</function>\n</tool_call>",
        (PARIS, OSLO),
        enforceable=True,
    ),
    Recorded(
        "qwen3-coder",
        "text with lines, quotes and tags",
        '<tool_call>\n<function=write_file>\n<parameter=path>\na.html\n</parameter>\n<parameter=text>\n\n<p>"é\\n"</p>\n\n'
        "</parameter>\n<parameter=mode>\nnew\n</parameter>\n</function>\n</tool_call>",
        (("write_file", {"path": "a.html", "text": '\n<p>"é\\n"</p>\n', "mode": "new"}),),
        enforceable=True,
    ),
    Recorded(
        "qwen3-coder",
        "nested",
        '<tool_call>\n<function=search>\n<parameter=filters>\n{"tags": ["a", "</x>"]}\n</parameter>\n'
        "<parameter=limit>\nnull\n</parameter>\n<parameter=score>\n0.5\n</parameter>\n</function>\n</tool_call>",
        (("search", {"filters": {"tags": ["a", "</x>"]}, "limit": None, "score": 0.5}),),
        enforceable=True,
    ),
    Recorded(
        "qwen3-coder",
        "empty arguments",
        "<tool_call>\n<function=now>\n</function>\n</tool_call>",
        (("now", {}),),
        enforceable=True,
    ),
    Recorded("qwen3-coder", "content before", f"I look.\n{CODER}", (PARIS,), "I look."),
    Recorded("qwen3-coder", "no outer tag", CODER.removeprefix("<tool_call>\n"), (PARIS,)),
    Recorded("qwen3-coder", "as Hermes", HERMES, (PARIS,)),
    Recorded(
        "qwen3-coder",
        "one line",
        "<tool_call><function=get_weather><parameter=city>Paris</parameter></function></tool_call>",
        (PARIS,),
    ),
    Recorded(
        "qwen3-coder",
        "not of its type",
        CODER.replace("city", "days").replace("Paris", "many"),
        (("get_weather", {"days": "many"}),),
    ),
    Recorded(
        "qwen3-coder",
        "an unknown tool",
        CODER.replace("get_weather", "f").replace("Paris", "07"),
        (("f", {"city": "07"}),),
    ),
    Recorded(
        "qwen3-coder",
        "Python's constants",
        CODER.replace("city", "metric").replace("Paris", "True"),
        (("get_weather", {"metric": True}),),
    ),
    Recorded("qwen3-coder", "cut off within a value", CODER[:55], content=CODER[:55]),
    Recorded("qwen3-coder", "cut off before the end of the function", CODER[:-23], content=CODER[:-23]),
    Recorded("qwen3-coder", "cut off before the last tag", CODER[:-12], (PARIS,)),
    Recorded("qwen3-coder", "prose", "<function=x y>", content="<function=x y>"),
    # Llama 3
    Recorded(
        "llama3", "single", '{"name": "get_weather", "parameters": {"city": "Paris"}}', (PARIS,), enforceable=True
    ),
    Recorded(
        "llama3",
        "parallel",
        '{"name": "get_weather", "parameters": {"city": "Paris"}}; {"name": "now", "parameters": {}}',
        (PARIS, ("now", {})),
        enforceable=True,
    ),
    Recorded(
        "llama3", "with its tag", '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}', (PARIS,)
    ),
    Recorded(
        "llama3",
        "with a type",
        '\n{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}',
        (PARIS,),
    ),
    Recorded("llama3", "custom", '<function=get_weather>{"city": "Paris"}</function>', (PARIS,)),
    Recorded(
        "llama3",
        "JSON that is no call",
        '{"name": "Paris", "parameters": {}}',
        content='{"name": "Paris", "parameters": {}}',
    ),
    Recorded("llama3", "JSON of another kind", '{"answer": 42}\n', content='{"answer": 42}\n'),
    Recorded("llama3", "JSON within text", 'So {"name": "now"}', content='So {"name": "now"}'),
    Recorded("llama3", "code", "<|python_tag|>print(1)", content="<|python_tag|>print(1)"),
    Recorded(
        "llama3",
        "cut off",
        '{"name": "get_weather", "parameters": {"ci',
        content='{"name": "get_weather", "parameters": {"ci',
    ),
    # Mistral
    Recorded("mistral", "parallel", f"[TOOL_CALLS]{LISTED}", (PARIS, ("now", {})), enforceable=True),
    Recorded("mistral", "content before", f"Ok. [TOOL_CALLS] {LISTED}", (PARIS, ("now", {})), "Ok."),
    Recorded("mistral", "the list not closed", f"[TOOL_CALLS]{LISTED[:-1]}", (PARIS, ("now", {}))),
    Recorded(
        "mistral", "cut off within the second", f"[TOOL_CALLS]{LISTED[:-10]}", (PARIS,), ', {"name": "now", "argume'
    ),
    Recorded("mistral", "brackets", "[TOOL] [TOOL_CALLS", content="[TOOL] [TOOL_CALLS"),
    Recorded("mistral-args", "single", '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}', (PARIS,), enforceable=True),
    Recorded(
        "mistral-args",
        "parallel",
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]now[ARGS]{}',
        (PARIS, ("now", {})),
        enforceable=True,
    ),
    Recorded("mistral-args", "no second marker", '[TOOL_CALLS]get_weather{"city": "Paris"}', (PARIS,)),
    Recorded(
        "mistral-args",
        "reasoning before",
        '[THINK]Hm.[/THINK][TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}',
        (PARIS,),
        reasoning="Hm.",
        enforceable=True,
    ),
    Recorded(
        "mistral-args", "malformed", "[TOOL_CALLS]get_weather[ARGS]Paris", content="[TOOL_CALLS]get_weather[ARGS]Paris"
    ),
    Recorded(
        "mistral-call-id",
        "single",
        '[TOOL_CALLS]get_weather[CALL_ID]Ab3dE6gH9[ARGS]{"city": "Paris"}',
        (PARIS,),
        enforceable=True,
    ),
    # Gemma
    Recorded(
        "gemma", "single", '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>', (PARIS,), enforceable=True
    ),
    Recorded(
        "gemma",
        "parallel, typed",
        '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>'
        '<|tool_call>call:get_weather{city:<|"|>Oslo<|"|>,days:3,metric:true}<tool_call|>',
        (PARIS, OSLO),
        enforceable=True,
    ),
    Recorded(
        "gemma",
        "nested, with braces in strings",
        '<|tool_call>call:search{filters:{tags:[<|"|>a}"<|"|>,<|"|>b\n<|"|>]},limit:null,score:-1.5}<tool_call|>',
        (("search", {"filters": {"tags": ['a}"', "b\n"]}, "limit": None, "score": -1.5}),),
        enforceable=True,
    ),
    Recorded("gemma", "empty arguments", "Now. <|tool_call>call:now{}<tool_call|>", (("now", {}),), "Now."),
    Recorded(
        "gemma",
        "delimiters forgotten",
        "<|tool_call>call:get_weather{city: New York, days: 07}<tool_call|>",
        (("get_weather", {"city": "New York", "days": "07"}),),
    ),
    Recorded(
        "gemma", "delimited keys", '<|tool_call>call:get_weather{<|"|>city<|"|>:<|"|>Paris<|"|>}<tool_call|>', (PARIS,)
    ),
    Recorded(
        "gemma",
        "empty values",
        "<|tool_call>call:search{filters:{tags:[]}}<tool_call|>",
        (("search", {"filters": {"tags": []}}),),
    ),
    Recorded(
        "gemma",
        "no colon",
        '<|tool_call>call:now{<|"|>a<|"|>}<tool_call|>',
        content='<|tool_call>call:now{<|"|>a<|"|>}<tool_call|>',
    ),
    Recorded(
        "gemma", "no value", "<|tool_call>call:now{a: }<tool_call|>", content="<|tool_call>call:now{a: }<tool_call|>"
    ),
    Recorded(
        "gemma",
        "no comma",
        "<|tool_call>call:now{a:[1 [2]]}<tool_call|>",
        content="<|tool_call>call:now{a:[1 [2]]}<tool_call|>",
    ),
    Recorded("gemma", "JSON", '<|tool_call>call:get_weather{"city": "Paris"}<tool_call|>', (PARIS,)),
    Recorded("gemma", "cut off behind the arguments", "<|tool_call>call:now{}", (("now", {}),)),
    Recorded(
        "gemma",
        "cut off",
        '<|tool_call>call:get_weather{city:<|"|>Par',
        content='<|tool_call>call:get_weather{city:<|"|>Par',
    ),
    Recorded("gemma", "prose", "<|tool_call>call me{", content="<|tool_call>call me{"),
    Recorded(
        "gemma",
        "reasoning before",
        "<|channel>thought\nHm.\n<channel|><|tool_call>call:now{}<tool_call|>",
        (("now", {}),),
        reasoning="Hm.",
        enforceable=True,
    ),
    Recorded(
        "function-gemma",
        "single",
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>}<end_function_call>",
        (PARIS,),
        enforceable=True,
    ),
    Recorded(
        "function-gemma",
        "optional alone",
        "<start_function_call>call:search{score:2}<end_function_call>",
        (("search", {"score": 2}),),
        enforceable=True,
    ),
    # DeepSeek
    Recorded("deepseek", "single", R1, (PARIS,), enforceable=True),
    Recorded(
        "deepseek",
        "parallel",
        R1.replace("<｜tool▁calls▁end｜>", "")
        + "\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        (PARIS, ("now", {})),
        enforceable=True,
    ),
    Recorded("deepseek", "reasoning in the prompt", f"Hm.</think>I look.{R1}", (PARIS,), "I look.", "Hm.", inside=True),
    Recorded("deepseek", "reasoning never closed", "Hm. \n", reasoning="Hm.", inside=True),
    Recorded("deepseek", "no end", R1[: R1.index("\n```<")], (PARIS,)),
    Recorded("deepseek", "no section", R1.removeprefix("<｜tool▁calls▁begin｜>"), (PARIS,)),
    Recorded("deepseek", "malformed", R1.replace("}", "]"), content=R1.replace("}", "]").removesuffix(SECTION_END)),
    Recorded("deepseek-v3.1", "single", V31, (PARIS,), enforceable=True),
    Recorded(
        "deepseek-v3.1",
        "parallel",
        V31.replace(
            "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        ),
        (PARIS, ("now", {})),
        enforceable=True,
    ),
    # GLM
    Recorded("glm", "single", GLM, (PARIS,), enforceable=True),
    Recorded("glm", "one line", GLM.replace("\n", ""), (PARIS,), enforceable=True),
    Recorded(
        "glm",
        "parallel, typed",
        f"{GLM}\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n<arg_key>metric</arg_key>\n<arg_value>true</arg_value>\n</tool_call>",
        (PARIS, OSLO),
        enforceable=True,
    ),
    Recorded(
        "glm",
        "text with lines",
        "<tool_call>write_file\n<arg_key>path</arg_key>\n<arg_value>12</arg_value>\n<arg_key>text</arg_key>\n"
        "<arg_value>\na < b\n</arg_value>\n</tool_call>",
        (("write_file", {"path": "12", "text": "\na < b\n"}),),
        enforceable=True,
    ),
    Recorded("glm", "empty arguments", "<tool_call>now\n</tool_call>", (("now", {}),), enforceable=True),
    Recorded("glm", "reasoning before", f"\n<think>Hm.</think>\nI look.\n{GLM}", (PARIS,), "I look.", "Hm."),
    Recorded("glm", "cut off", GLM[:-20], content=GLM[:-20]),
    Recorded(
        "glm", "malformed", "<tool_call>get the weather</tool_call>", content="<tool_call>get the weather</tool_call>"
    ),
    # Kimi K2
    Recorded("kimi-k2", "single", KIMI, (PARIS,), enforceable=True),
    Recorded(
        "kimi-k2",
        "parallel",
        KIMI.replace(
            "<|tool_calls_section_end|>",
            "<|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
        ),
        (PARIS, ("now", {})),
        enforceable=True,
    ),
    Recorded("kimi-k2", "content before", f"I look. {KIMI}", (PARIS,), "I look."),
    Recorded("kimi-k2", "a call within reasoning", f"<think>Hm. {KIMI}", (PARIS,), reasoning="Hm."),
    Recorded("kimi-k2", "no end", KIMI.removesuffix("<|tool_call_end|><|tool_calls_section_end|>"), (PARIS,)),
    Recorded("kimi-k2", "cut off", KIMI[:75], content=KIMI[:75]),
    # gpt-oss
    Recorded("harmony", "single", GPT_OSS, (PARIS,), enforceable=True),
    Recorded("harmony", "without its last token", GPT_OSS.removesuffix("<|call|>"), (PARIS,)),
    Recorded(
        "harmony",
        "reasoning before",
        f"<|channel|>analysis<|message|>Hm. {{a}}<|end|><|start|>assistant{GPT_OSS}",
        (PARIS,),
        reasoning="Hm. {a}",
    ),
    Recorded(
        "harmony",
        "recipient in the role",
        "<|channel|>commentary<|message|>I look.<|end|>"
        '<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Paris"}<|call|>',
        (PARIS,),
        "I look.",
    ),
    Recorded(
        "harmony",
        "final",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Sun, 20 < 21.<|return|>",
        content="Sun, 20 < 21.",
        reasoning="Hm.",
    ),
    Recorded(
        "harmony",
        "no end between",
        "<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>Sun.",
        content="Sun.",
        reasoning="Hm.",
    ),
    Recorded("harmony", "cut off within reasoning", "<|channel|>analysis<|message|>Hm", reasoning="Hm"),
    Recorded(
        "harmony", "cut off within a header", "<|channel|>analysis<|message|>Hm<|end|><|start|>assis", reasoning="Hm"
    ),
    Recorded(
        "harmony",
        "empty arguments",
        "<|channel|>commentary to=functions.now <|constrain|>json<|message|><|call|>",
        (("now", {}),),
    ),
    Recorded("harmony", "a header without end", LONG_HEADER, content=LONG_HEADER),
    Recorded("harmony", "no header", "Sun.", content="Sun."),
    Recorded(
        "harmony",
        "malformed",
        "<|channel|>commentary to=functions.now<|message|>now!",
        content="<|channel|>commentary to=functions.now<|message|>now!",
    ),
    Recorded("harmony", "cut off", GPT_OSS[:-12], content=GPT_OSS[:-12]),
    # Phi
    Recorded("phi", "parallel", f"<|tool_call|>{LISTED}<|/tool_call|>", (PARIS, ("now", {})), enforceable=True),
    Recorded(
        "phi", "one, not in a list", '<|tool_call|>{"name": "now", "arguments": {}}<|/tool_call|>', (("now", {}),)
    ),
    Recorded("phi", "functools", f"functools{LISTED}", (PARIS, ("now", {}))),
    Recorded(
        "phi",
        "functools in prose",
        "Use functools.wraps or functools[0].",
        content="Use functools.wraps or functools[0].",
    ),
    # Granite
    Recorded("granite", "parallel", f"<|tool_call|>{LISTED}", (PARIS, ("now", {})), enforceable=True),
    Recorded("granite", "3.1", f"<tool_call>{LISTED}", (PARIS, ("now", {}))),
    Recorded("granite", "as Hermes", HERMES, (PARIS,)),
    Recorded("granite", "an empty list", "<|tool_call|>[]", content="<|tool_call|>[]"),
    # Generic
    Recorded(
        "generic", "single", '{"name": "get_weather", "arguments": {"city": "Paris"}}', (PARIS,), enforceable=True
    ),
    Recorded(
        "generic",
        "lines",
        '{"name": "get_weather", "arguments": {"city": "Paris"}}\n{"name": "now", "arguments": {}}',
        (PARIS, ("now", {})),
        enforceable=True,
    ),
    Recorded("generic", "a list", LISTED, (PARIS, ("now", {}))),
    Recorded("generic", "in a fence", f"Sure:\n```json\n{LISTED}\n```", (PARIS, ("now", {})), "Sure:"),
    Recorded("generic", "in Hermes' tags", HERMES, (PARIS,)),
    Recorded("generic", "tool_calls", f'{{"tool_calls": {LISTED}}}', (PARIS, ("now", {}))),
    Recorded("generic", "a fence with other JSON", '```json\n{"a": 1}\n```', content='```json\n{"a": 1}\n```'),
    Recorded("generic", "a list of numbers", "[1, 2, 3]", content="[1, 2, 3]"),
    Recorded("generic", "an unknown tool", '{"name": "Paris"}', content='{"name": "Paris"}'),
)
