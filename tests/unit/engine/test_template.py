"""Chat templates run in a sandbox and fail as the client's error."""

from __future__ import annotations

import pytest

from modelyard.engine.template import ChatTemplate
from modelyard.errors import InvalidRequest, UnsupportedOperation

HELLO = [{"role": "user", "content": "<b>Héllo</b>"}]


def rendered(source: str) -> str:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>").render(HELLO)


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
    ],
)
def test_a_template_that_fails_on_the_messages_is_the_clients_error(source: str) -> None:
    with pytest.raises(InvalidRequest):
        rendered(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ strftime_now.__globals__['json'] }}",
        "{{ range(10**9) | list }}",
    ],
)
def test_a_template_reaches_neither_python_nor_its_input(source: str) -> None:
    with pytest.raises(InvalidRequest):
        rendered(source)
    assert HELLO == [{"role": "user", "content": "<b>Héllo</b>"}]


@pytest.mark.parametrize("source", ["{% if %}", "{{ messages", "{% unknown %}", "{{ 'x' | unknown_filter }}"])
def test_a_template_that_is_no_jinja_cannot_be_used(source: str) -> None:
    with pytest.raises(UnsupportedOperation, match="chat_template"):
        rendered(source)
