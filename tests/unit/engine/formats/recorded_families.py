"""Answers in the formats of single families, and faults that several formats are read in spite of."""

from __future__ import annotations

from typing import Any

from unit.engine.formats.recorded import CODER, GLM, GPT_OSS, HERMES, KIMI, LISTED, OSLO, PARIS, RECORDED, Recorded
from unit.engine.formats.recorded_hermes import RECORDED_HERMES

_NOW: tuple[str, dict[str, Any]] = ("now", {})
_DSML = (
    '<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>\n'
    "</｜DSML｜invoke>"
)
_DSML_OSLO = (
    '<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city" string="true">Oslo</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="metric" string="false">true</｜DSML｜parameter>\n</｜DSML｜invoke>'
)
_V32 = f"<｜DSML｜function_calls>\n{_DSML}\n</｜DSML｜function_calls>"
_V4 = f"<｜DSML｜tool_calls>\n{_DSML}\n{_DSML_OSLO}\n</｜DSML｜tool_calls>"
_V41 = f"<｜DSML｜ calls>\n{_DSML}\n</｜DSML｜ calls>".replace("｜invoke", "｜ invoke").replace("｜param", "｜ param")
_M2 = (
    '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n</invoke>\n'
    '<invoke name="now">\n</invoke>\n</minimax:tool_call>'
)
_M3 = (
    ']<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name="get_weather">]<]minimax[>[<city>Paris]<]minimax[>[</city>'
    "]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>"
)
_M3_NESTED = (
    ']<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name="search">]<]minimax[>[<filters>]<]minimax[>[<tags>'
    "]<]minimax[>[<item>a]<]minimax[>[</item>]<]minimax[>[<item>7]<]minimax[>[</item>]<]minimax[>[</tags>"
    "]<]minimax[>[</filters>]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>"
)
_K3 = (
    '<|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|><|open|>argument key="city" type="string"'
    "<|sep|>Paris<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>"
)
_SEED_PYTHON = (
    "<seed:tool_call>\n<function=search>\n<parameter=filters>{'tags': ['a']}</parameter>\n</function>\n"
    "</seed:tool_call>"
)
_SEED = "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n</function>\n</seed:tool_call>"
_HUNYUAN = (
    "<tool_calls:opensource>\n<tool_call:opensource>get_weather<tool_sep:opensource>\n"
    "<arg_key:opensource>city</arg_key:opensource>\n<arg_value:opensource>Paris</arg_value:opensource>\n"
    "</tool_call:opensource>\n</tool_calls:opensource>"
)
_SOLAR = (
    "<|tool_calls|><|tool_call:begin|>ab-1<|tool_call:name|>get_weather<|tool_call:args|>"
    '{"city": "Paris"}<|tool_call:end|><|calls|>'
)
_MUSE = (
    ' to=get_weather<|message|><atem:function_calls>\n<atem:invoke name="get_weather">\n'
    '<atem:parameter name="city">Paris</atem:parameter>\n</atem:invoke>\n</atem:function_calls>'
)
_WEATHER_JSON = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
_ACTIONS = '[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"city": "Paris"}}\n]'

FAMILIES = (
    # DSML
    Recorded("deepseek-v3.2", "single", _V32, (PARIS,), enforceable=True),
    Recorded("deepseek-v3.2", "as 4", f"I look.\n\n{_V4}", (PARIS, OSLO), "I look."),
    Recorded("deepseek-v3.2", "no section", _DSML, (PARIS,)),
    Recorded("deepseek-v3.2", "an argument not closed", _V32.replace("</｜DSML｜parameter>", ""), (PARIS,)),
    Recorded("deepseek-v3.2", "no end", _V32[: _V32.index("\n</｜DSML｜invoke>")], (PARIS,)),
    Recorded(
        "deepseek-v3.2",
        "a closing tag in a value",
        _V32.replace("Paris", "</｜DSML｜parameter> ends it"),
        (("get_weather", {"city": "</｜DSML｜parameter> ends it"}),),
    ),
    Recorded("deepseek-v3.2", "in reasoning", f"<think>Hm. {_V32}", (PARIS,), reasoning="Hm."),
    Recorded("deepseek-v4", "parallel, typed", _V4, (PARIS, OSLO), enforceable=True),
    Recorded("deepseek-v4.1", "single", _V41, (PARIS,), enforceable=True),
    # MiniMax, MiniCPM, Muse
    Recorded("minimax-m2", "parallel", _M2, (PARIS, _NOW), enforceable=True),
    Recorded("minimax-m2", "content before", f"I look.\n{_M2}", (PARIS, _NOW), "I look."),
    Recorded("minimax-m3", "single", _M3, (PARIS,), enforceable=True),
    Recorded("minimax-m3", "nested", _M3_NESTED, (("search", {"filters": {"tags": ["a", "7"]}}),), enforceable=True),
    Recorded("minimax-m1", "single", f"<tool_calls>\n{_WEATHER_JSON}\n</tool_calls>", (PARIS,), enforceable=True),
    Recorded(
        "minicpm",
        "marked as text",
        '<function name="get_weather"><param name="city"><![CDATA[Paris]]></param></function>',
        (PARIS,),
    ),
    Recorded(
        "minicpm",
        "single",
        '<function name="get_weather">\n<param name="city">Paris</param>\n</function>',
        (PARIS,),
        enforceable=True,
    ),
    Recorded("muse", "single", _MUSE, (PARIS,)),
    Recorded(
        "muse",
        "reasoning before",
        f" to=self<|message|>Hm.<|eom|><|start|>assistant{_MUSE}<|eom|>",
        (PARIS,),
        reasoning="Hm.",
    ),
    Recorded("muse", "content", " to=user<|message|>Sun.<|eot|>", content="Sun."),
    # Kimi K3, Solar, Functionary
    Recorded("kimi-k3", "single", _K3, (PARIS,), enforceable=True),
    Recorded(
        "kimi-k3", "content before", f"<|open|>response<|sep|>I look.<|close|>response<|sep|>{_K3}", (PARIS,), "I look."
    ),
    Recorded(
        "kimi-k3",
        "arguments as one element",
        _K3.replace(
            '<|open|>argument key="city" type="string"<|sep|>Paris<|close|>argument<|sep|>',
            '<|open|>json type="object"<|sep|>{"city": "Paris"}<|close|>json<|sep|>',
        ),
        (PARIS,),
    ),
    Recorded("solar", "single", _SOLAR, (PARIS,), enforceable=True),
    Recorded("solar", "content before", f"<|content|>I look.<|end|><|begin|>assistant{_SOLAR}", (PARIS,), "I look."),
    Recorded("functionary", "single", 'get_weather\n{"city": "Paris"}', (PARIS,), enforceable=True),
    Recorded("functionary", "content before", 'all\nI look.>>>get_weather\n{"city": "Paris"}', (PARIS,), "I look."),
    Recorded("functionary", "no recipient", "I look.", content="I look."),
    # Seed, Hunyuan
    Recorded("seed", "single", _SEED, (PARIS,), enforceable=True),
    Recorded("seed", "a value of Python", _SEED_PYTHON, (("search", {"filters": {"tags": ["a"]}}),)),
    Recorded("hunyuan", "single", _HUNYUAN, (PARIS,), enforceable=True),
    # JSON between markers
    Recorded("apriel", "parallel", f"<tool_calls>{LISTED}</tool_calls>", (PARIS, _NOW), enforceable=True),
    Recorded("nemotron", "parallel", f"<TOOLCALL>{LISTED}</TOOLCALL>", (PARIS, _NOW), enforceable=True),
    Recorded("command", "single", f"<|START_ACTION|>{_ACTIONS}<|END_ACTION|>", (PARIS,), enforceable=True),
    Recorded(
        "command-r",
        "single",
        'Action:\n```json\n[{"tool_name": "get_weather", "parameters": {"city": "Paris"}}]```',
        (PARIS,),
        enforceable=True,
    ),
    Recorded("gigachat", "single", f"<|function_call|>{_WEATHER_JSON}", (PARIS,), enforceable=True),
    Recorded("gigachat-3", "single", f"function call<|role_sep|>\n{_WEATHER_JSON}", (PARIS,), enforceable=True),
    Recorded(
        "gigachat-3",
        "content before",
        f"I look.<|message_sep|>\n\nfunction call<|role_sep|>\n{_WEATHER_JSON}<|message_sep|>\n\n",
        (PARIS,),
        "I look.",
    ),
    Recorded(
        "apertus",
        "parallel",
        '<|tools_prefix|>[{"get_weather": {"city": "Paris"}}, {"now": {}}]<|tools_suffix|>',
        (PARIS, _NOW),
        enforceable=True,
    ),
    # Python
    Recorded("llama4", "parallel", '[get_weather(city="Paris"), now()]', (PARIS, _NOW), enforceable=True),
    Recorded("llama4", "typed", "[get_weather(city='Oslo', days=3, metric=True)]", (OSLO,)),
    Recorded("llama4", "with its tags", '<|python_start|>[get_weather(city="Paris")]<|python_end|>', (PARIS,)),
    Recorded("llama4", "by position", '[get_weather("Oslo", 3, True)]', (OSLO,)),
    Recorded("llama4", "JSON", '{"name": "get_weather", "parameters": {"city": "Paris"}}', (PARIS,)),
    Recorded("llama4", "a list that is no call", "[1, 2]", content="[1, 2]"),
    Recorded("llama4", "an unknown function", "[f(a=1)]", content="[f(a=1)]"),
    Recorded(
        "llama4",
        "literals of all kinds",
        "[search(filters={'tags': ('a', \"it's\", '\\u00e9\\x41')}, limit=None, score=-.5e1)]",
        (("search", {"filters": {"tags": ["a", "it's", "éA"]}, "limit": None, "score": -5.0}),),
    ),
    Recorded("llama3", "Python", '[get_weather(city="Paris")]', (PARIS,)),
    Recorded(
        "lfm2",
        "parallel",
        '<|tool_call_start|>[get_weather(city="Paris"), now()]<|tool_call_end|>',
        (PARIS, _NOW),
        enforceable=True,
    ),
    Recorded("lfm2", "JSON", f"<|tool_call_start|>{LISTED}<|tool_call_end|>", (PARIS, _NOW)),
    Recorded(
        "olmo3",
        "parallel",
        '<function_calls>\nget_weather(city="Paris")\nnow()\n</function_calls>',
        (PARIS, _NOW),
        enforceable=True,
    ),
    # Faults that calls are read in spite of
    Recorded("qwen3-coder", "in reasoning", f"Hm.\n{CODER}", (PARIS,), reasoning="Hm.", inside=True),
    Recorded("qwen3-coder", "an argument not closed", CODER.replace("\n</parameter>", ""), (PARIS,)),
    Recorded(
        "qwen3-coder",
        "an argument not closed before another",
        CODER.replace("\n</parameter>", "\n<parameter=days>\n3\n</parameter>"),
        (("get_weather", {"city": "Paris", "days": 3}),),
    ),
    Recorded(
        "qwen3-coder",
        "an argument not closed before another call",
        CODER.replace("\n</parameter>", "") + f"\n{CODER}",
        (PARIS, PARIS),
    ),
    Recorded(
        "qwen3-coder",
        "closing tags in a value",
        CODER.replace("Paris", "</parameter> or </function>\n</tool_call> here"),
        (("get_weather", {"city": "</parameter> or </function>\n</tool_call> here"}),),
    ),
    Recorded("qwen3-coder", "no end of the function", CODER.replace("\n</function>", ""), (PARIS,)),
    Recorded("qwen3-coder", "no end at all", CODER[: CODER.index("\n</function>")], (PARIS,)),
    Recorded("glm", "a value not closed", GLM.replace("</arg_value>", ""), (PARIS,)),
    Recorded(
        "glm",
        "a value not closed before another",
        GLM.replace("</arg_value>", "\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>"),
        (("get_weather", {"city": "Paris", "days": 3}),),
    ),
    Recorded("glm", "no end", GLM.removesuffix("\n</tool_call>"), (PARIS,)),
    Recorded("glm", "no end before another call", GLM.removesuffix("\n</tool_call>") + GLM, (PARIS, PARIS)),
    Recorded("glm", "in reasoning", f"Hm. {GLM}", (PARIS,), reasoning="Hm.", inside=True),
    Recorded(
        "kimi-k2",
        "text between the calls",
        KIMI.replace("<|tool_calls_section_end|>", f" And: {KIMI.removeprefix('<|tool_calls_section_begin|>')}"),
        (PARIS, PARIS),
    ),
    Recorded("kimi-k2", "text before the calls", KIMI.replace("<|tool_call_b", "So: <|tool_call_b"), (PARIS,)),
    Recorded(
        "harmony",
        "the recipient before the channel",
        ' to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Paris"}<|call|>',
        (PARIS,),
    ),
    Recorded(
        "harmony",
        "Python code",
        "<|channel|>analysis to=python code<|message|>print(1)\n<|call|>",
        (("python", {"code": "print(1)\n"}),),
    ),
    Recorded("harmony", "a brace too few", GPT_OSS.replace("}", ""), (PARIS,)),
    Recorded("harmony", "a recipient without its namespace", GPT_OSS.replace("functions.", ""), (PARIS,)),
    Recorded(
        "mistral", "a brace too few", '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"', (PARIS,)
    ),
    Recorded("mistral-args", "a brace too few", '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"', (PARIS,)),
    Recorded("gemma", "a brace too few", '<|tool_call>call:get_weather{city:<|"|>Paris<|"|><tool_call|>', (PARIS,)),
    Recorded(
        "phi",
        "a brace too few",
        '<|tool_call|>[{"name": "now", "arguments": {"a": 1<|/tool_call|>',
        (("now", {"a": 1}),),
    ),
    Recorded("hermes", "two braces too few", HERMES.replace("}}", ""), (PARIS,)),
    Recorded(
        "hermes",
        "brackets too few",
        HERMES.replace('"Paris"}}', '["a", ["b"'),
        (("get_weather", {"city": ["a", ["b"]]}),),
    ),
    Recorded("hermes", "no end, no brace", HERMES[: HERMES.index("}}")], (PARIS,)),
    Recorded("hermes", "two closing tags", f"{HERMES}\n</tool_call>", (PARIS,)),
    Recorded(
        "hermes",
        "Python's constants",
        '<tool_call>{"name": "now", "arguments": {"a": [True, None]}}</tool_call>',
        (("now", {"a": [True, None]}),),
    ),
    Recorded(
        "hermes",
        "a call in reasoning that is closed later",
        f"<think>I could {HERMES} now.</think>No.",
        content="No.",
        reasoning=f"I could {HERMES} now.",
    ),
    Recorded(
        "hermes",
        "a marker in reasoning that is closed later",
        "<think>I write <tool_call> then.</think>No.",
        content="No.",
        reasoning="I write <tool_call> then.",
    ),
)

ALL = (*RECORDED_HERMES, *RECORDED, *FAMILIES)
