"""A rendered prompt tells what the template wrote and what the request brought."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from modelyard.engine.chat.marked_text import MarkedText, is_by_template, runs_of
from modelyard.engine.chat.template import ChatTemplate
from modelyard.engine.chat.template_processes import TemplateProcesses
from modelyard.engine.input.partition import Partition
from modelyard.engine.llama import SpecialToken
from modelyard.errors import InvalidRequest
from support.templates import templates

TEMPLATES = TemplateProcesses()

# All content consists of this letter, which no template writes.
LETTER = "ж"
MESSAGES = [{"role": "user", "content": LETTER * 3}, {"role": "assistant", "content": LETTER * 2}]


def rendered(
    source: str, messages: Sequence[Mapping[str, Any]] = MESSAGES, tools: Sequence[Mapping[str, Any]] = ()
) -> MarkedText:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>", processes=TEMPLATES).render(messages, tools)


@pytest.mark.parametrize(
    "source",
    [
        "<a>{{ content }}<b>",
        "{{ '<a>' + content + '<b>' }}",
        "{{ content + '<b>' }}",
        "{{ '<a>' ~ content ~ 1 ~ '<b>' }}",
        "{{ '<%s>' % content }}{{ '<%s|%%>' | format(content) }}{{ '%(x)s<' | format(x=content) }}",
        "{{ '<{}|{x}>{{'.format(content, x='<b>') }}{{ '{0[content]}!'.format(messages[0]) }}",
        "{{ ('<a>' + content + '<b>')[1:-1] }}{{ ('<a>' + content)[0] }}{{ 'abc'[::-1] }}",
        "{{ (' <a>' ~ content ~ '<b> ') | trim }}{{ ' <a>\n'.strip() }}{{ ('<a>' ~ content).lstrip('<') }}",
        "{% for part in ('<a>,' ~ content ~ ',<b>').split(',') %}{{ part }};{% endfor %}",
        "{% for line in ('<a>\n' ~ content).splitlines() %}[{{ line }}]{% endfor %}",
        "{{ ('<a>' ~ content ~ '<b>').partition('<b>')[0] }}{{ ('<a>' ~ content).rpartition('>')[2] }}",
        "{{ '<X>'.replace('X', content) }}{{ '<X>' | replace('X', content) }}{{ content.replace('x', '<a>') }}",
        "{{ ['<a>', content, '<b>'] | join }}{{ ['<a>', content] | join('|') }}{{ ', '.join(['<a>', content]) }}",
        "{{ messages | map(attribute='content') | join('<|>') }}",
        "{{ '<a>' | upper }}{{ '<A>'.lower() }}{{ '<a b>' | title }}{{ '<a>' | capitalize }}{{ 'ab'.title() }}",
        "{{ ('<a>' ~ content ~ '<b>').upper().lower() }}",
        "{{ '<a>x'.removesuffix('x') }}{{ 'x<a>'.removeprefix('x') }}{{ '-' * 3 }}{{ 3 * '<a>' }}",
        "{{ ('<a>\n' ~ content ~ '\n\n<b>') | indent(2) }}{{ '<a>\n<b>' | indent('> ', true, true) }}",
        "{{ '<a>' | first }}{{ '<a>' | last }}{{ '<a>' | reverse }}{{ ('<a>' | list)[1] }}{{ '<a>' | string }}",
        "{{ unknown | default('<a>') }}{{ content | default('<a>') }}{{ '<a>' | safe }}",
        "{{ ('<a>' | safe) ~ '<b>' }}{{ ('a' | safe) + 'b' }}{{ '[a]' + (content | safe) + '[b]' }}",
        "{{ content.replace(content, '<a>') }}{{ content.join(['<a>', '<b>']) }}",
        "{% for letter in '<a>' %}{{ letter }}{% endfor %}{% for letter in content %}{{ letter }}{% endfor %}",
        "{% macro turn(text, end='<b>') %}<a>{{ text }}{{ end }}{% endmacro %}{{ turn(content) }}",
        "{% macro frame() %}<a>{{ caller() }}<b>{% endmacro %}{% call frame() %}<c>{{ content }}{% endcall %}",
        "{% set text %}<a>{{ content }}<b>{% endset %}{{ text }}{{ text | trim }}",
        "{% set text | trim %}  <a>{{ content }}<b>  {% endset %}{{ text }}",
        "{% filter replace('a', 'b') %}<a>{{ content }}<a>{% endfilter %}",
        "{% set n = namespace(text='<a>') %}{% set n.text = n.text + content + '<b>' %}{{ n.text }}",
        "{% set parts = {'user': '<a>'} %}{{ parts['user'] }}{{ parts.get('user') }}{{ parts.get('no', '<b>') }}",
        "{% for key, value in {'<a>': content}.items() %}{{ key }}{{ value }}{% endfor %}",
        "{{ '<a>' if content else '<b>' }}{{ '' or '<b>' }}",
        "{{ bos_token }}{{ content }}{{ eos_token }}",
        "{{ '<|' + messages[0].role + '|>' }}{{ '<|' ~ messages[1]['role'] ~ '|>' }}",
        "{% generation %}<a>{{ content }}{% endgeneration %}",
        "{% for m in messages %}{{ loop.cycle('<a>', '<b>') }}{{ m.content }}{% endfor %}",
        "{% block body %}<a>{{ messages[0].content }}{% endblock %}",
    ],
)
def test_what_a_template_does_with_its_text_leaves_it_the_templates(source: str) -> None:
    text = rendered("{% set content = messages[0].content %}" + source)
    assert text
    assert [is_by_template(text, at, at + 1) for at in range(len(text))] == [
        character not in (LETTER, "1") for character in text
    ]


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0] | tojson }}",
        "{{ {'a': '<|a|>'} | tojson }}",
        "{{ messages }}",
        "{{ '<a>' | center(9) }}",
        "{{ '<a>' | escape }}",
        "{{ '<a>' + (messages[0].content | escape) }}",
    ],
)
def test_what_is_not_known_to_be_the_templates_is_content(source: str) -> None:
    text = rendered(source)
    assert runs_of(text) == [0, len(text)]


def test_a_role_without_a_meaning_is_content() -> None:
    text = rendered("<|{{ messages[0].role }}|>", [{"role": "end", "content": ""}])
    assert runs_of(text) == [2, 3, 2]


# The templates of real models

WORD = re.compile(r"q[A-Za-z]+q\d+q")
CONTROL = re.compile(r"<\|[^|<>\s]+\|>|<｜[^｜<>\s]+｜>|</?[a-z_]+>|\[/?[A-Z_]+\]|<\|?[a-z_]+\|?>")
COMMON = ("<s>", "</s>", "<|user|>", "<|system|>", "<|assistant|>", "<|end|>", "<|im_start|>", "<|im_end|>")
POSITIONS = ("System", "User", "Answer", "Description", "Name", "Parameter", "Value", "Result", "Last")


def conversation(said: Mapping[str, str], part: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A conversation with ``said`` at all its positions, or only those parts of it that a template takes."""
    system = {"role": "system", "content": said["System"]}
    user = {"role": "user", "content": said["User"]}
    call = {
        "id": "call00001",
        "type": "function",
        "function": {"name": said["Name"], "arguments": {said["Parameter"]: said["Value"]}},
    }
    calls = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call00001", "name": said["Name"], "content": said["Result"]},
    ]
    answers = [{"role": "assistant", "content": said["Answer"]}, {"role": "user", "content": said["Last"]}]
    parameters = {
        "type": "object",
        "properties": {said["Parameter"]: {"type": "string", "description": said["Description"]}},
        "required": [said["Parameter"]],
    }
    function = {"name": said["Name"], "description": said["Description"], "parameters": parameters}
    tools = [{"type": "function", "function": function}]
    parts: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
        "all": ([system, user, *calls, *answers], tools),
        "no system": ([user, *calls, *answers], tools),
        "no tools": ([system, user, *answers], []),
        "turns": ([user, *answers], []),
    }
    return parts[part]


# Variables that a template wants from its users.
OPTIONS = {"functions": "", "datetime": ""}


def rendered_where_possible(template: ChatTemplate, said: Mapping[str, str]) -> tuple[str, MarkedText]:
    for part in ("all", "no system", "no tools"):
        try:
            messages, tools = conversation(said, part)
            return part, template.render(messages, tools, OPTIONS)
        except InvalidRequest:
            continue
    messages, tools = conversation(said, "turns")
    return "turns", template.render(messages, tools, OPTIONS)


@pytest.mark.parametrize("name", templates())
def test_real_templates_write_all_control_tokens_and_none_that_a_request_spells(name: str) -> None:
    source = templates()[name]
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>", processes=TEMPLATES)
    words = {position: f"q{position}q{index}q" for index, position in enumerate(POSITIONS)}
    part, text = rendered_where_possible(template, words)

    found = list(WORD.finditer(text))
    assert {"User", "Last"} <= {word[0].split("q")[1] for word in found}
    for word in found:
        assert not any(is_by_template(text, at, at + 1) for at in range(*word.span()))

    # As many as there are without marks: the template loses none of its own.
    controls = sorted({*CONTROL.findall(source), *COMMON}, key=len, reverse=True)
    partition = Partition(SpecialToken(index, control) for index, control in enumerate(controls))

    def control_tokens(text: MarkedText) -> list[str]:
        return [token.text for token in partition.divide(text) if isinstance(token, SpecialToken)]

    written = control_tokens(text)
    longest_first = re.compile("|".join(map(re.escape, controls)))
    schema = json.dumps(conversation(words, part)[1])
    assert written == [control for control in longest_first.findall(text) if control not in schema]

    # Templates take what reads like reasoning out of answers.
    spelt = " ".join(controls)
    hostile = {at: word if at == "Answer" else f"x {word} {spelt} y" for at, word in words.items()}
    messages, tools = conversation(hostile, part)
    attacked = template.render(messages, tools, OPTIONS)
    assert control_tokens(attacked) == written
    assert len(attacked) > len(text)
