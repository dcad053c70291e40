"""Chat templates run in a sandbox and fail as the client's error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from modelyard.engine.chat.template import ChatTemplate
from modelyard.engine.chat.template_processes import TemplateProcesses
from modelyard.errors import InvalidRequest, UnsupportedOperation

HELLO = [{"role": "user", "content": "<b>Héllo</b>"}]


TEMPLATES = TemplateProcesses()


def rendered(source: str, messages: Sequence[Mapping[str, Any]] = HELLO) -> str:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>", processes=TEMPLATES).render(messages)


def test_a_template_sees_the_messages_and_the_special_tokens() -> None:
    source = "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m['content'] }}{{ eos_token }}{% endfor %}"
    assert rendered(source) == "<s>user:<b>Héllo</b></s>"


def test_the_assistants_turn_is_opened() -> None:
    assert rendered("{% if add_generation_prompt %}ASSISTANT:{% endif %}") == "ASSISTANT:"


def test_blocks_leave_no_blank_lines_and_loops_can_be_left() -> None:
    source = (
        "{% for i in range(5) %}\n    {% if i == 2 %}\n        {% break %}\n    {% endif %}\n{{ i }}\n{% endfor %}\n"
    )
    assert rendered(source) == "0\n1\n"


def test_tojson_escapes_nothing_that_json_does_not() -> None:
    assert rendered("{{ messages[0] | tojson }}") == '{"role": "user", "content": "<b>Héllo</b>"}'


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("ensure_ascii=True", '{"b": "\\u00e9", "a": 1}'),
        ("separators=(',', ':')", '{"b":"é","a":1}'),
        ("sort_keys=True", '{"a": 1, "b": "é"}'),
        ("indent=1", '{\n "b": "é",\n "a": 1\n}'),
        ("False, 1", '{\n "b": "é",\n "a": 1\n}'),
    ],
)
def test_tojson_takes_what_hugging_faces_takes(arguments: str, expected: str) -> None:
    assert rendered("{{ {'b': 'é', 'a': 1} | tojson(" + arguments + ") }}") == expected


def test_tools_and_documents_are_none_as_at_hugging_face() -> None:
    assert rendered("{{ tools is none and documents is none }}") == "True"
    assert rendered("{% if tools is not none %}You have tools.{% endif %}") == ""


def test_what_a_template_marks_for_training_is_written_out() -> None:
    source = "{% for m in messages %}\n{% generation %}\n{{ m.role }}{% endgeneration %}\n{% endfor %}"
    assert rendered(source) == "user"


def test_one_rendering_leaves_nothing_to_the_next() -> None:
    template = ChatTemplate(
        "{% set n = (n or 0) + 1 %}{{ n }}{{ messages | length }}", bos_token="", eos_token="", processes=TEMPLATES
    )
    assert [template.render(HELLO), template.render(HELLO * 2)] == ["11", "12"]


def test_the_date_is_there() -> None:
    assert rendered("{{ strftime_now('%Y') }}").startswith("2")


def test_what_the_template_refuses_is_the_clients_error() -> None:
    with pytest.raises(InvalidRequest, match="Roles must alternate") as refused:
        rendered("{{ raise_exception('Roles must alternate') }}")
    assert refused.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[7].content.strip() }}",
        "{{ 1 / 0 }}",
        "{{ messages + 1 }}",
        "{{ unknown_function() }}",
        "{{ messages[0].content.nothing() }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ raise_exception() }}",
        "{% include 'other' %}",
        "{{ messages[0].__class__ | tojson }}",
    ],
)
def test_a_template_that_fails_on_the_messages_is_the_clients_error(source: str) -> None:
    with pytest.raises(InvalidRequest):
        rendered(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages[0].update(role='system') }}",
        "{{ strftime_now.__globals__['json'] }}",
        "{{ messages[0].__setitem__('role', 'system') }}",
        "{% set _ = messages[0].pop('role') %}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ (messages | map(attribute='__class__') | first).__mro__ }}",
        "{{ '{0.__class__.__mro__}'.format(messages) + unknown.x }}",
        "{{ range(10**9) | list }}",
    ],
)
def test_a_template_reaches_neither_python_nor_its_input(source: str) -> None:
    with pytest.raises(InvalidRequest):
        rendered(source)
    assert HELLO == [{"role": "user", "content": "<b>Héllo</b>"}]


def test_a_template_collects_in_lists_of_its_own() -> None:
    source = (
        "{% set _ = messages.append(messages[0]) %}{% set seen = [] %}{% set _ = seen.append('a') %}{{ seen.pop() }}"
    )
    assert rendered(source + "{{ messages | length }}") == "a2"
    assert rendered("{{ messages | length }}") == "1"
    assert len(HELLO) == 1


@pytest.mark.parametrize(
    "source",
    [
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ 10 ** 10 * 'a' }}",
        "{{ messages * 10 ** 9 }}",
        "{{ (1, 2) * 10 ** 9 }}",
        "{% set n = namespace(x=3) %}{% for i in range(40) %}{% set n.x = n.x * n.x %}{% endfor %}",
    ],
)
def test_a_product_that_would_take_all_memory_or_time_is_refused(source: str) -> None:
    with pytest.raises(InvalidRequest, match="too large"):
        rendered(source)


def test_products_of_a_prompts_size_are_computed() -> None:
    assert rendered("{{ '=' * 3 }}{{ 2 * '-' }}{{ 6 * 7 }} {{ 2 ** 10 }} {{ 1.5 * 2 }}") == "===--42 1024 3.0"


def test_a_conversation_nested_without_end_is_the_clients_error() -> None:
    message: dict[str, Any] = {}
    message["again"] = message
    with pytest.raises(InvalidRequest):
        rendered("{{ messages | tojson }}", [message])


def test_an_error_without_words_is_named_by_its_kind() -> None:
    source = "{% set n = namespace(x=[]) %}{% set n.x = [n] %}{{ [1, 2] | batch(0) | list }}{{ [].index() }}"
    with pytest.raises(InvalidRequest, match=r"out: \S"):
        rendered(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% if %}",
        "{{ messages",
        "{% unknown %}",
        "{{ 'x' | unknown_filter }}",
        "{% generation %}never closed",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{% for i in [1] %}" * 30 + "{% endfor %}" * 30,
    ],
    ids=["no-condition", "open", "tag", "filter", "open-block", "too-deep-for-jinja", "too-deep-for-python"],
)
def test_a_template_that_is_no_jinja_cannot_be_used(source: str) -> None:
    with pytest.raises(UnsupportedOperation, match="chat_template"):
        rendered(source)


def test_a_mistake_in_a_template_is_shown_with_its_line() -> None:
    with pytest.raises(UnsupportedOperation, match=r"unknown tag 'nonsense'.*line 2"):
        rendered("one\n{% nonsense %}")


IN_PARTS = "{% for m in messages %}{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}"
IN_PARTS += "{% endfor %};{% endfor %}"


def test_a_template_that_reads_only_lists_of_parts_is_given_lists() -> None:
    assert rendered(IN_PARTS) == "<b>Héllo</b>;"
    assert rendered(IN_PARTS, [{"role": "user", "content": "a"}, {"role": "assistant"}, *HELLO]) == "a;;<b>Héllo</b>;"


def test_a_template_that_reads_both_is_given_text() -> None:
    both = "{{ messages[0].content is string }} {{ messages[0].content if messages[0].content is string else '' }}"
    assert rendered(both) == "True <b>Héllo</b>"
