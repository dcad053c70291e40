"""Answers in the format of Hermes, which most families have."""

from __future__ import annotations

from unit.engine.formats.recorded import HERMES, OSLO, PARIS, Recorded

LONG_NUMBER = '<tool_call>{"name": "now", "arguments": {"a": 1' + "0" * 1100 + "}}</tool_call>"

RECORDED_HERMES = (
    # Hermes
    Recorded("hermes", "single", HERMES, (PARIS,), enforceable=True),
    Recorded(
        "hermes",
        "parallel",
        HERMES + '\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo", "days": 3, "metric": true}}'
        "\n</tool_call>",
        (PARIS, OSLO),
        enforceable=True,
    ),
    Recorded("hermes", "content around", f"Let me look.\n\n{HERMES}\n", (PARIS,), "Let me look."),
    Recorded("hermes", "content behind", f"{HERMES}\nThere.", (PARIS,), "There."),
    Recorded("hermes", "content between", f"One {HERMES} two {HERMES}", (PARIS, PARIS), "One  two"),
    Recorded(
        "hermes",
        "braces and markers in strings",
        '<tool_call>\n{"name": "write_file", "arguments": {"path": "a}{", "text": "</tool_call> \\"]}\\" <tool_call>"}}'
        "\n</tool_call>",
        (("write_file", {"path": "a}{", "text": '</tool_call> "]}" <tool_call>'}),),
    ),
    Recorded(
        "hermes",
        "unicode and escapes",
        '<tool_call>\n{"name": "write_file", "arguments": '
        '{"path": "\\u00e9\\ud83d\\ude00", "text": "né\\t\\\\n🎉 日本"}}'
        "\n</tool_call>",
        (("write_file", {"path": "é😀", "text": "né\t\\n🎉 日本"}),),
    ),
    Recorded(
        "hermes",
        "unicode and braces",
        '<tool_call>\n{"name": "write_file", "arguments": '
        '{"path": "a}{", "text": "né\\t\\\\n🎉 日本 \\"]}\\""}}\n</tool_call>',
        (("write_file", {"path": "a}{", "text": 'né\t\\n🎉 日本 "]}"'}),),
        enforceable=True,
    ),
    Recorded(
        "hermes",
        "nested",
        '<tool_call>\n{"name": "search", "arguments": '
        '{"filters": {"tags": ["a", "b"]}, "limit": null, "score": -1.5e2}}'
        "\n</tool_call>",
        (("search", {"filters": {"tags": ["a", "b"]}, "limit": None, "score": -150.0}),),
        enforceable=True,
    ),
    Recorded(
        "hermes",
        "empty arguments",
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        (("now", {}),),
        enforceable=True,
    ),
    Recorded("hermes", "no arguments", '<tool_call>{"name": "now"}</tool_call>', (("now", {}),)),
    Recorded("hermes", "null arguments", '<tool_call>{"name": "now", "arguments": null}</tool_call>', (("now", {}),)),
    Recorded("hermes", "no white space", HERMES.replace("\n", "").replace(": ", ":"), (PARIS,)),
    Recorded(
        "hermes",
        "much white space",
        '<tool_call> \n\t{\n "name" : "get_weather",\n "arguments" :\n {"city" : "Paris"\n }\n}\n\n</tool_call>  \n',
        (PARIS,),
    ),
    Recorded(
        "hermes",
        "name last",
        '<tool_call>{"arguments": {"city": "Paris"}, "name": "get_weather"}</tool_call>',
        (PARIS,),
    ),
    Recorded("hermes", "parameters", HERMES.replace("arguments", "parameters"), (PARIS,)),
    Recorded(
        "hermes",
        "arguments within a string",
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>',
        (PARIS,),
    ),
    Recorded(
        "hermes",
        "OpenAI's own shape",
        '<tool_call>{"id": "x", "type": "function", "function": '
        '{"name": "get_weather", "arguments": {"city": "Paris"}}}</tool_call>',
        (PARIS,),
    ),
    Recorded(
        "hermes",
        "a line break within a string",
        '<tool_call>{"name": "write_file", "arguments": {"path": "a", "text": "one\ntwo\t"}}</tool_call>',
        (("write_file", {"path": "a", "text": "one\ntwo\t"}),),
    ),
    Recorded(
        "hermes", "an unknown tool", HERMES.replace("get_weather", "invented"), (("invented", {"city": "Paris"}),)
    ),
    Recorded("hermes", "a brace too few", HERMES.replace("}}", "}"), (PARIS,)),
    Recorded("hermes", "a brace too many", HERMES.replace("}}", "}}}"), (PARIS,)),
    Recorded("hermes", "cut off behind the arguments", HERMES[: HERMES.index("}") + 1], (PARIS,)),
    Recorded("hermes", "cut off within the arguments", HERMES[:-22], content=HERMES[:-22]),
    Recorded("hermes", "cut off within the name", HERMES[:25], content=HERMES[:25]),
    Recorded("hermes", "cut off within the marker", "Well <tool_ca", content="Well <tool_ca"),
    Recorded(
        "hermes", "Python", "<tool_call>{'name': 'now'}</tool_call>", content="<tool_call>{'name': 'now'}</tool_call>"
    ),
    Recorded(
        "hermes",
        "Python arguments",
        '<tool_call>{"name": "now", "arguments": {\'a\': 1}}</tool_call>',
        content='<tool_call>{"name": "now", "arguments": {\'a\': 1}}</tool_call>',
    ),
    Recorded(
        "hermes",
        "malformed within, and a call behind",
        'So:\n<tool_call>{"name": "now", "arguments": {"a": 1,}}</tool_call>\n' + HERMES,
        (PARIS,),
        'So:\n<tool_call>{"name": "now", "arguments": {"a": 1,}}</tool_call>',
    ),
    Recorded(
        "hermes",
        "no name",
        '<tool_call>{"name": "", "arguments": {"a": 1}}</tool_call>',
        content='<tool_call>{"name": "", "arguments": {"a": 1}}</tool_call>',
    ),
    Recorded(
        "hermes",
        "arguments in a list",
        '<tool_call>{"name": "now", "arguments": [1]}</tool_call>',
        content='<tool_call>{"name": "now", "arguments": [1]}</tool_call>',
    ),
    Recorded(
        "hermes",
        "arguments that are a number within a string",
        '<tool_call>{"name": "now", "arguments": "5"}</tool_call>',
        content='<tool_call>{"name": "now", "arguments": "5"}</tool_call>',
    ),
    Recorded(
        "hermes",
        "arguments that are prose",
        '<tool_call>{"name": "now", "arguments": "now!"}</tool_call>',
        content='<tool_call>{"name": "now", "arguments": "now!"}</tool_call>',
    ),
    Recorded(
        "hermes",
        "a member without a value",
        '<tool_call>{"name" "now"}</tool_call>',
        content='<tool_call>{"name" "now"}</tool_call>',
    ),
    Recorded(
        "hermes",
        "an escape that JSON does not have",
        '<tool_call>{"name": "now", "arguments": {"a": "\\x41"}}</tool_call>',
        content='<tool_call>{"name": "now", "arguments": {"a": "\\x41"}}</tool_call>',
    ),
    Recorded(
        "hermes",
        "half a constant",
        '<tool_call>{"name": "now", "arguments": {"a": tru}}</tool_call>',
        content='<tool_call>{"name": "now", "arguments": {"a": tru}}</tool_call>',
    ),
    Recorded(
        "hermes",
        "a key without a value",
        '<tool_call>{"name": "now", "arguments": {"a"}}</tool_call>',
        content='<tool_call>{"name": "now", "arguments": {"a"}}</tool_call>',
    ),
    Recorded("hermes", "a number without end", LONG_NUMBER, content=LONG_NUMBER),
    Recorded(
        "hermes",
        "a value cut off",
        '<tool_call>{"name": "now", "arguments": {"a": "\\u00',
        content='<tool_call>{"name": "now", "arguments": {"a": "\\u00',
    ),
    Recorded(
        "hermes", "no text for arguments", '<tool_call>{"name": "now", "arguments": ""}</tool_call>', (("now", {}),)
    ),
    Recorded(
        "hermes",
        "more members",
        '<tool_call>{"id": [1], "name": "now", "arguments": {}, "x": {"y": 1}}</tool_call>',
        (("now", {}),),
    ),
    Recorded("hermes", "prose behind a marker", "Write <tool_call> to call.", content="Write <tool_call> to call."),
    Recorded(
        "hermes",
        "other tags",
        "a < b, <tool_cal> <b>bold</b> </tool_call>",
        content="a < b, <tool_cal> <b>bold</b> </tool_call>",
    ),
    Recorded(
        "hermes", "reasoning before", f"<think>\nHm.\n</think>\n\n{HERMES}", (PARIS,), reasoning="Hm.", enforceable=True
    ),
    Recorded("hermes", "empty reasoning", f"<think>\n\n</think>\n\n{HERMES}", (PARIS,), enforceable=True),
    Recorded(
        "hermes",
        "reasoning in the prompt",
        f"Hm.\n</think>\n\n{HERMES}",
        (PARIS,),
        reasoning="Hm.",
        inside=True,
        enforceable=True,
    ),
    Recorded("hermes", "reasoning never closed", f"<think>Hm. {HERMES}", (PARIS,), reasoning="Hm."),
    Recorded(
        "hermes",
        "reasoning, then content",
        "<think>a\n\nb</think>\n\nc <think> d",
        reasoning="a\n\nb",
        content="c <think> d",
    ),
    Recorded("hermes", "reasoning late", " x <think>a</think>", content=" x <think>a</think>"),
)
