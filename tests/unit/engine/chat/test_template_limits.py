"""A template takes no more than its time and memory, whatever it does, and takes nobody else's."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modelyard.engine.chat.template import MAX_CONVERSATION_LENGTH, MAX_TEMPLATE_LENGTH, ChatTemplate
from modelyard.engine.chat.template_processes import TemplateProcesses
from modelyard.errors import ContextLengthExceeded, InvalidRequest, ModelyardError, PromptUnread, UnsupportedOperation

WAIT_S = 60.0
HELLO = [{"role": "user", "content": "hello"}]
NOW = [{"role": "user", "content": "do it now"}]
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def patient() -> Iterator[TemplateProcesses]:
    """Whatever is stopped here is not stopped for its time."""
    processes = TemplateProcesses(limit_s=WAIT_S)
    yield processes
    processes.close()


@pytest.fixture(scope="module")
def hasty() -> Iterator[TemplateProcesses]:
    """Whatever goes on is stopped soon."""
    processes = TemplateProcesses(limit_s=0.1)
    yield processes
    processes.close()


def template(source: str, processes: TemplateProcesses) -> ChatTemplate:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>", processes=processes)


def only_for_now(source: str) -> str:
    """A template that does something for NOW alone, so that it is harmless when it is looked at."""
    return "{% if 'now' in messages[0].content %}\n" + source + "{% endif %}{{ messages[0].content }}"


def doubled(expression: str, start: str = "'xx'") -> str:
    times = "{% for i in range(99) %}{% set n.a = " + expression + " %}{% endfor %}"
    return "{% set n = namespace(a=" + start + ") %}" + times


def nested(name: str) -> str:
    return "{% set n." + name + " = [n." + name + ", n." + name + "] %}"


def again(source: str) -> str:
    """A template that takes long each time, often."""
    return "{% for again in range(9999) %}" + source + "{% endfor %}"


TOO_LARGE = [
    "{{ 'a' | center(3000000000) }}",
    "{{ 'x'.ljust(3000000000) }}",
    "{{ '%*d' | format(3000000000, 1) }}",
    "{{ '{0:{1}}'.format('x', 3000000000) }}",
    "{{ '{:>3000000000}'.format('x') | length }}",
    "{{ '%.1000000000f' | format(1.5) }}",
    doubled("n.a ~ n.a"),
    doubled("n.a + n.a", "[1]"),
    doubled("n.a.replace('x', n.a)"),
    doubled("n.a.join([n.a, n.a])"),
    doubled("n.a | replace('x', n.a)"),
    "{{ [1] | batch(10 ** 9, 'x') | list | length }}",
    "{{ 'a\nb' | indent(10 ** 9) }}",
    "{{ [1, [2]] | tojson(indent=10 ** 9) }}",
    "{{ range(99999) | map('string') | map('center', 100000) | join | length }}",
]
ENDLESS_ONES = [
    ENDLESS,
    "{% for a in range(99999) %}{% for b in range(99999) | list %}{% endfor %}{% endfor %}",
    "{{ lipsum(n=100000000) }}",
    "{{ range(99999) | slice(10 ** 9) | list | length }}",
    again("{{ ('a' * 1000000) | wordwrap(1) | length }}"),
    again("{{ ('a.' * 500000) | urlize | length }}"),
    again("{{ (range(99999) | list) | pprint | length }}"),
    "{% filter upper %}" + ENDLESS + "{% endfilter %}",
    "{% macro m() %}" + ENDLESS + "{% endmacro %}{{ m() }}",
    # In C, where no signal is seen.
    "{% set n = namespace(a=[], b=[]) %}{% for i in range(40) %}" + nested("a") + nested("b") + "{% endfor %}"
    "{{ n.a == n.b }}",
]


@pytest.mark.parametrize("source", TOO_LARGE)
def test_a_template_that_takes_all_memory_is_refused_with_its_line(source: str, patient: TemplateProcesses) -> None:
    with pytest.raises(InvalidRequest, match=r"took more than 64 MB of memory \(line [23]: ") as refused:
        template(only_for_now(source), patient).render(NOW)
    assert refused.value.param == "messages"


@pytest.mark.parametrize("source", ENDLESS_ONES)
def test_a_template_that_does_not_end_is_refused_with_its_line(source: str, hasty: TemplateProcesses) -> None:
    with pytest.raises(InvalidRequest, match=r"did not end within 0.1 s \(line 2: "):
        template(only_for_now(source), hasty).render(NOW)


def test_a_template_that_writes_without_end_is_refused_with_its_line(patient: TemplateProcesses) -> None:
    endless = template(only_for_now("{% for a in range(99999) %}{{ 'a' * 100000 }}{% endfor %}"), patient)
    with pytest.raises(InvalidRequest, match=r"wrote more than 16,777,216 characters \(line 2: "):
        endless.render(NOW)
    assert endless.render(HELLO) == "hello"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{% for x in [[[]]] recursive %}{{ loop([x]) }}{% endfor %}", "recursion"),
        ("{% include 'x' %}", "no loader"),
        ("{% import 'x' as y %}{{ y }}", "no loader"),
        ("{% extends 'x' %}", "no loader"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "unsafe"),
        ("{% set x = 9 %}{{ x ** (x ** x) }}", "too large"),
        ("{% set x = 'a' * 1000000 %}{{ (x * 3000) | length }}", "too large"),
        ("{{ 7 ** 30000 }}", "4300 digits"),
        ("{{ range(10 ** 9) | list }}", "Range too big"),
    ],
)
def test_what_a_sandbox_forbids_is_refused(source: str, reason: str, patient: TemplateProcesses) -> None:
    with pytest.raises(InvalidRequest, match=f"cannot write these messages out: .*{reason}"):
        template(only_for_now(source), patient).render(NOW)


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("{{ ('<' * 300000) | striptags | length }}", "300000"),
        ("{{ ('<!--' * 100000) | striptags | length }}", "400000"),
        ("{{ strftime_now('%Y' * 1000) | length }}", "4000"),
        ("{{ 9 ** 9 ** 3 }}", str((9**9) ** 3)),
    ],
)
def test_what_is_only_long_is_written(source: str, written: str, patient: TemplateProcesses) -> None:
    assert template(source, patient).render(HELLO) == written


@pytest.mark.parametrize("source", [ENDLESS, "{{ 1 }}" * 100_000, only_for_now("") + ENDLESS])
def test_a_template_that_does_not_end_when_it_is_looked_at_cannot_be_used(
    source: str, hasty: TemplateProcesses
) -> None:
    with pytest.raises(UnsupportedOperation, match=r"cannot be used: did not end within 0.1 s.* Set chat_template"):
        template(source, hasty)


def test_a_template_of_a_megabyte_cannot_be_used(patient: TemplateProcesses) -> None:
    with pytest.raises(UnsupportedOperation, match="1,000,001 characters, and 1,000,000 are the most"):
        template(" " * (MAX_TEMPLATE_LENGTH + 1), patient)


def test_a_conversation_of_many_megabytes_is_longer_than_any_context(patient: TemplateProcesses) -> None:
    with pytest.raises(ContextLengthExceeded, match="Shorten it"):
        template("{{ messages[0].content }}", patient).render(
            [{"role": "user", "content": "a" * MAX_CONVERSATION_LENGTH}]
        )


def test_a_long_conversation_is_written(patient: TemplateProcesses) -> None:
    text = "é \N{WAVING HAND SIGN} " * 300_000
    assert template("{{ messages[0].content | trim }}!", patient).render([{"content": text}]) == text.strip() + "!"


def test_a_schema_nested_too_deeply_is_the_clients_error(patient: TemplateProcesses) -> None:
    parameters: dict[str, Any] = {}
    for _ in range(10_000):
        parameters = {"properties": {"a": parameters}}
    with pytest.raises(InvalidRequest, match="recursion"):
        template("{{ tools | tojson }}", patient).render(HELLO, [{"function": {"parameters": parameters}}])


@pytest.mark.parametrize(
    ("content", "written"),
    [("\ud800 é\0", "\ud800 é\0"), (float("nan"), "nan"), (-0.0, "-0.0"), (2**200, str(2**200)), (None, "None")],
)
def test_odd_values_arrive_as_they_are(content: Any, written: str, patient: TemplateProcesses) -> None:
    assert template("{{ messages[0].content }}", patient).render([{"content": content}]) == written


@pytest.mark.parametrize("content", [b"bytes", {1, 2}, object(), 10**5000], ids=["bytes", "set", "object", "digits"])
def test_what_is_no_json_is_refused(content: Any, patient: TemplateProcesses) -> None:
    with pytest.raises(InvalidRequest, match="cannot be given to the model's chat template"):
        template("{{ messages[0].content }}", patient).render([{"content": content}])


def test_a_stopped_template_serves_the_next_conversation(hasty: TemplateProcesses) -> None:
    chat = template(only_for_now(ENDLESS), hasty)
    for _ in range(3):
        with pytest.raises(InvalidRequest, match="did not end"):
            chat.render(NOW)
        assert chat.render(HELLO) == "hello"


def test_a_template_that_does_not_end_holds_up_no_other() -> None:
    processes = TemplateProcesses(limit_s=WAIT_S)
    other, endless = template("{{ messages[0].content }}", processes), template(only_for_now(ENDLESS), processes)
    failures: list[Exception] = []

    def render() -> None:
        try:
            endless.render(NOW)
        except ModelyardError as stopped:
            failures.append(stopped)

    threads = [threading.Thread(target=render) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        assert other.render(HELLO) == "hello"
    assert all(thread.is_alive() for thread in threads)
    # What is closed does not wait for them, either.
    processes.close()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(failures) == 2


def test_templates_that_were_stopped_leave_processes_to_others() -> None:
    processes = TemplateProcesses(limit_s=0.5, wait_s=0.0)
    other, endless = template("{{ messages[0].content }}", processes), template(only_for_now(ENDLESS), processes)
    with pytest.raises(InvalidRequest, match="did not end"):
        endless.render(NOW)
    with ThreadPoolExecutor(8) as threads:
        attempts = [threads.submit(endless.render, NOW) for _ in range(8)]
        assert other.render(HELLO) == "hello"
        kinds = {type(attempt.exception(WAIT_S)) for attempt in attempts}
    assert kinds == {InvalidRequest, PromptUnread}
    processes.close()


def has_ended(pids: list[int]) -> bool:
    for pid in pids:
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([process], [], [], WAIT_S)[0]:
                return False
        finally:
            os.close(process)
    return True


def test_there_is_no_process_before_the_first_template_and_none_after_the_end() -> None:
    processes = TemplateProcesses()
    assert processes.pids == []
    template("", processes)
    pids = processes.pids
    assert len(pids) == 1
    processes.close()
    assert (has_ended(pids), processes.pids) == (True, [])
    with pytest.raises(PromptUnread, match="closed"):
        template("", processes)


def test_a_process_that_dies_is_replaced(patient: TemplateProcesses) -> None:
    chat = template("{{ messages[0].content }}", patient)
    before = patient.pids
    os.kill(before[-1], signal.SIGKILL)
    assert has_ended(before[-1:])
    assert chat.render(HELLO) == "hello"
    assert before[-1] not in patient.pids


def test_processes_for_renders_at_the_same_time_end_when_they_are_idle() -> None:
    processes = TemplateProcesses(limit_s=WAIT_S, idle_s=0.1)
    busy = template(
        only_for_now("{% for a in range(400) %}{% for b in range(999) %}{% endfor %}{% endfor %}"), processes
    )
    with ThreadPoolExecutor(3) as threads:
        renders = [threads.submit(busy.render, NOW) for _ in range(3)]
        used = set()
        while not all(render.done() for render in renders):
            used.update(processes.pids)
    kept = processes.pids[-1]
    assert len(used) > 1
    assert has_ended([pid for pid in used if pid != kept])
    assert busy.render(HELLO) == "hello"
    assert processes.pids == [kept]
    processes.close()


def test_processes_end_with_that_of_their_owner_even_if_it_is_killed() -> None:
    program = (
        "import time\n"
        "from modelyard.engine.chat.template_processes import TemplateProcesses\n"
        "from modelyard.engine.chat.template import ChatTemplate\n"
        "processes = TemplateProcesses()\n"
        "ChatTemplate('', bos_token='', eos_token='', processes=processes)\n"
        "print(processes.pids[0], flush=True)\n"
        f"time.sleep({WAIT_S})\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
    assert has_ended([pid])


def test_a_process_knows_no_secret_of_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    processes = TemplateProcesses()
    template("", processes)
    assert b"hf_secret" not in Path(f"/proc/{processes.pids[0]}/environ").read_bytes()
    processes.close()


def test_the_time_is_that_of_the_servers_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    processes = TemplateProcesses()
    assert template("{{ strftime_now('%z') }}", processes).render(HELLO) == "+1400"
    processes.close()
