"""An engine in a process of its own serves as one on a thread does, and its death ends nothing but that process."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.engine.hosts import engine_process, remote_engine_state
from modelyard.engine.hosts.journal import Journal, open_journal
from modelyard.engine.hosts.process_engine import EngineProcesses
from modelyard.engine.hosts.stalls import StallBounds
from modelyard.engine.hosts.step_watch import StepWatch
from modelyard.protocol.events import (
    ContextResized,
    ContextWanted,
    Died,
    Embedded,
    Failed,
    LoadFailed,
    Returned,
    Suspended,
    Tokenized,
)
from modelyard.protocol.messages import Restore, Resume
from modelyard.protocol.prompts import Chat, Sampling, Text
from modelyard.protocol.requests import Cancel, Embed, Resize, Stop, Tokenize
from modelyard.protocol.values import SequenceId
from modelyard.system.shared_memory import SharedArray
from modelyard.yard.runtime.engine_hosts import EngineHosts
from support.engine_driver import GREEDY, TEMPLATES, WAIT_S, Driven, long_prompt

PROMPT = "Once upon a time, in a small village by the sea,"
SEEDED = Sampling(temperature=0.9, seed=7)
SUSPEND = Stop(suspend=True, keep_bytes=2**40)
FIRST = SequenceId(0)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    journal = open_journal(tmp_path_factory.mktemp("journal"))
    yield journal
    journal.close()


@pytest.fixture(scope="module")
def processes(journal: Journal) -> Iterator[EngineProcesses]:
    processes = EngineProcesses(journal, TEMPLATES)
    yield processes
    processes.close()


@pytest.fixture
def smollm2(weights: dict[str, Path]) -> Path:
    return weights["smollm2"]


@pytest.fixture(scope="module")
def texts(weights: dict[str, Path]) -> dict[Sampling, str]:
    """What is said undisturbed, on a thread."""
    driven = Driven(weights["smollm2"])
    said = {}
    for number, sampling in enumerate((GREEDY, SEEDED)):
        said[number] = driven.answer(PROMPT, sampling, number=number)
    driven.stopped(Stop())
    return said  # type: ignore[return-value]


def pids(journal: Journal) -> set[int]:
    return {activity.pid for activity in journal.table.records()}


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def die(driven: Driven, journal: Journal, number: int = signal.SIGKILL) -> None:
    """Kill the process of the only engine, and wait for its last event."""
    (pid,) = pids(journal)
    os.kill(pid, number)
    driven.until(lambda: driven.over is not None)
    assert isinstance(driven.over, Died)
    assert driven.engine.join(WAIT_S)
    assert is_gone(pid)


def left(driven: Driven) -> list[Suspended]:
    return [event for event in driven.ended.values() if isinstance(event, Suspended)]


def test_it_says_what_one_on_a_thread_says(
    smollm2: Path, processes: EngineProcesses, journal: Journal, texts: dict[int, str]
) -> None:
    driven = Driven(smollm2, processes=processes)
    assert driven.loaded().is_isolated
    (pid,) = pids(journal)
    assert pid != os.getpid()
    assert driven.answer(PROMPT, GREEDY, number=0) == texts[0]
    assert driven.answer(PROMPT, SEEDED, number=1) == texts[1]
    driven.stopped(Stop())
    assert is_gone(pid), "with the last event its memory is free"
    assert journal.table.records() == ()


def test_an_answer_outgrows_its_context_there_as_well(
    smollm2: Path, processes: EngineProcesses, texts: dict[int, str]
) -> None:
    driven = Driven(smollm2, processes=processes, first_cells=256)
    driven.submit(0, long_prompt(smollm2, 240), max_tokens=60)
    assert driven.next(ContextWanted).needed > 256
    driven.send(Resize((512,), 1 << 30))
    assert driven.next(ContextResized) == ContextResized(512)
    assert driven.finished(0).usage.completion_tokens == 60
    assert driven.answer(PROMPT, SEEDED, number=1) == texts[1]
    driven.stopped(Stop())


def test_a_state_goes_from_process_to_process_and_to_a_thread_without_being_computed_again(
    smollm2: Path, processes: EngineProcesses, texts: dict[int, str]
) -> None:
    driven = Driven(smollm2, processes=processes)
    driven.submit(0, PROMPT, SEEDED)
    text = ""
    for host in (processes, None, processes):
        driven.until(lambda driven=driven: len(driven.texts.get(FIRST, "")) > 20)
        was_isolated = driven.loaded().is_isolated
        (state,) = driven.suspended(SUSPEND)
        text += driven.texts[FIRST]
        assert state.kept is not None
        assert len(state.kept.tokens) >= len(state.prompt) + len(state.answer) - 1
        assert isinstance(state.kept.kv, SharedArray) is was_isolated
        driven = Driven(smollm2, processes=host)
        driven.send(Resume(state))
    assert driven.finished().usage.completion_tokens == 48
    assert text + driven.texts.get(FIRST, "") == texts[1]
    driven.stopped(Stop())


def test_a_budget_of_reasoning_holds_across_processes_and_suspensions(
    smollm2: Path, processes: EngineProcesses
) -> None:
    template = "{% for message in messages %}{{ message.content }}{% endfor %}<think>\n"
    settings = {"chat_template": template, "reasoning_format": "think"}
    chat = Chat(({"role": "user", "content": PROMPT},))
    undisturbed = Driven(smollm2, **settings)
    expected = undisturbed.answer(chat, GREEDY, reasoning_budget=32)
    usage = undisturbed.finished().usage
    assert expected.count("</think>") == 1
    assert 32 < usage.reasoning_tokens < 32 + 10
    undisturbed.stopped(Stop())

    driven = Driven(smollm2, processes=processes, **settings)
    driven.submit(0, chat, GREEDY, reasoning_budget=32)
    text = ""
    # The second engine has what it needs only from the state that was written; the third gets that without its KV.
    for host, is_bare in ((None, False), (processes, True)):
        driven.until(lambda driven=driven: len(driven.texts.get(FIRST, "")) > 8)
        (state,) = driven.suspended(SUSPEND)
        text += driven.texts[FIRST]
        driven = Driven(smollm2, processes=host, **settings)
        driven.send(Resume(state.without_kv() if is_bare else state))
    finished = driven.finished()
    assert text + driven.texts.get(FIRST, "") == expected
    assert finished.usage.reasoning_tokens == usage.reasoning_tokens
    driven.stopped(Stop())


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, *(pytest.param(number, marks=pytest.mark.long) for number in (signal.SIGSEGV, signal.SIGABRT))],
    ids=lambda number: number.name,
)
def test_when_it_dies_its_requests_leave_it_and_go_on_elsewhere(
    smollm2: Path, processes: EngineProcesses, journal: Journal, texts: dict[int, str], number: signal.Signals
) -> None:
    driven = Driven(smollm2, processes=processes)
    for request, sampling in enumerate((GREEDY, SEEDED)):
        driven.submit(request, PROMPT, sampling)
    driven.until(lambda: len(driven.texts) == 2 and all(len(text) > 20 for text in driven.texts.values()))
    die(driven, journal, number)
    assert isinstance(driven.over, Died)
    assert number.name in driven.over.reason
    states = [event.state for event in left(driven)]
    assert [state.sequence for state in states] == [0, 1]
    assert set(driven.active) <= {0, 1}
    again = Driven(smollm2, processes=processes)
    again.send(*map(Resume, states))
    for request in (0, 1):
        assert again.finished(request).usage.completion_tokens == 48
        sequence = SequenceId(request)
        assert driven.texts[sequence] + again.texts.get(sequence, "") == texts[request]
    again.stopped(Stop())


def test_when_memory_runs_out_its_requests_go_on_elsewhere(
    smollm2: Path, processes: EngineProcesses, journal: Journal, texts: dict[int, str]
) -> None:
    driven = Driven(smollm2, processes=processes)
    driven.submit(0, PROMPT, GREEDY)
    driven.until(lambda: len(driven.texts.get(FIRST, "")) > 20)
    (pid,) = pids(journal)
    resource.prlimit(pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))
    # So that it needs some.
    driven.submit(1, Text("a" * (64 << 20)), GREEDY)
    driven.until(lambda: driven.over is not None)
    assert isinstance(driven.over, Died)
    (state,) = [event.state for event in left(driven) if event.sequence == 0]
    again = Driven(smollm2, processes=processes)
    again.send(Resume(state))
    again.finished()
    assert driven.texts[FIRST] + again.texts.get(FIRST, "") == texts[0]
    again.stopped(Stop())


def test_one_that_dies_while_it_loads_says_so(smollm2: Path, processes: EngineProcesses, journal: Journal) -> None:
    driven = Driven(smollm2, processes=processes)
    deadline = time.monotonic() + WAIT_S
    while not pids(journal):
        assert time.monotonic() < deadline
    die(driven, journal)
    assert driven.dying is None


def test_one_that_dies_while_it_leaves_loses_no_request(
    smollm2: Path, processes: EngineProcesses, journal: Journal
) -> None:
    driven = Driven(smollm2, processes=processes)
    driven.loaded()
    (pid,) = pids(journal)
    driven.submit(0, PROMPT)
    driven.until(lambda: bool(driven.texts))
    # So that the stop is not heard any more.
    os.kill(pid, signal.SIGSTOP)
    driven.send(SUSPEND)
    die(driven, journal)
    assert [event.sequence for event in left(driven)] == [0]


def test_two_models_on_one_file_share_a_process_and_die_together(
    smollm2: Path, processes: EngineProcesses, journal: Journal
) -> None:
    first = Driven(smollm2, name="first", processes=processes)
    first.loaded()
    second = Driven(smollm2, name="second", processes=processes)
    second.loaded()
    assert len(pids(journal)) == 1
    assert {activity.name for activity in journal.table.records()} == {"first", "second"}
    first.stopped(Stop())
    assert second.answer(PROMPT, GREEDY)
    die(second, journal)


def test_parked_weights_stay_in_the_process_until_they_are_released(
    smollm2: Path, processes: EngineProcesses, journal: Journal
) -> None:
    driven = Driven(smollm2, processes=processes)
    driven.loaded()
    (pid,) = pids(journal)
    parked = driven.stopped(Stop(park=True)).parked
    assert parked is not None
    assert not is_gone(pid)
    again = Driven(smollm2, processes=processes)
    again.loaded()
    assert pids(journal) == {pid}
    parked.release()
    assert again.answer(PROMPT, GREEDY)
    parked = again.stopped(Stop(park=True)).parked
    assert parked is not None
    parked.release()
    assert is_gone(pid)


@pytest.mark.long
def test_a_model_that_is_woken_often_does_not_use_up_the_table(
    smollm2: Path, processes: EngineProcesses, journal: Journal
) -> None:
    parked = None
    for _ in range(3):
        driven = Driven(smollm2, processes=processes, context_length=64)
        driven.loaded()
        held, parked = parked, driven.stopped(Stop(park=True)).parked
        if held is not None:
            held.release()
        assert len(journal.table.records()) == 1
    assert parked is not None
    parked.release()


def test_parked_weights_that_are_lost_are_told_of(smollm2: Path, processes: EngineProcesses, journal: Journal) -> None:
    driven = Driven(smollm2, processes=processes)
    driven.loaded()
    (pid,) = pids(journal)
    parked = driven.stopped(Stop(park=True)).parked
    os.kill(pid, signal.SIGKILL)
    driven.until(lambda: driven.lost is not None)
    assert parked is not None
    parked.release()


def test_vectors_and_tokens_cross_and_what_had_no_answer_is_returned(
    weights: dict[str, Path], processes: EngineProcesses, journal: Journal
) -> None:
    driven = Driven(weights["smollm2"], processes=processes, kind="embedding")
    driven.loaded()
    (pid,) = pids(journal)
    driven.send(Embed(SequenceId(1), (Text("a"), Text("b"))), Tokenize(SequenceId(2), Text("a b")))
    events = {}
    while len(events) < 2:
        event = driven._events.get(timeout=WAIT_S)
        events[type(event)] = event
    assert events[Embedded].vectors.shape[0] == 2
    assert np.allclose(np.linalg.norm(events[Embedded].vectors, axis=1), 1.0, atol=1e-5)
    assert len(events[Tokenized].tokens) == 2
    os.kill(pid, signal.SIGSTOP)
    driven.send(Embed(SequenceId(3), (Text("a"),)))
    die(driven, journal)
    assert driven.ended[SequenceId(3)] == Returned(SequenceId(3))


def test_prompts_that_are_kept_cross_both_ways(smollm2: Path, processes: EngineProcesses) -> None:
    driven = Driven(smollm2, processes=processes, kv_keep="memory", kv_keep_bytes=2**30)
    prompt = long_prompt(smollm2, 300)
    driven.answer(prompt, GREEDY)
    kept = driven.stopped(SUSPEND).kept
    assert kept is not None
    again = Driven(smollm2, processes=processes, kv_keep="memory", kv_keep_bytes=2**30)
    again.send(Restore(kept))
    again.answer(prompt, GREEDY)
    assert again.finished().usage.cached_tokens > 250
    again.stopped(Stop())


def test_a_load_that_fails_is_told_of_as_on_a_thread(tmp_path: Path, processes: EngineProcesses) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    events = []
    driven = Driven(broken, processes=processes, starts=False)
    driven.engine.start()
    while not events or not isinstance(events[-1], LoadFailed | Died):
        events.append(driven._events.get(timeout=WAIT_S))
    assert isinstance(events[-1], LoadFailed)
    assert driven.engine.join(WAIT_S)


PROGRAM = """
import sys
from pathlib import Path
from queue import SimpleQueue
from modelyard.engine.chat.template_processes import TemplateProcesses
from modelyard.engine.hosts.journal import open_journal
from modelyard.engine.hosts.process_engine import EngineProcesses
from modelyard.protocol.events import Loaded
from modelyard.engine.settings import EngineSettings
events = SimpleQueue()
journal = open_journal(Path(sys.argv[2]))
engine = EngineProcesses(journal, TemplateProcesses()).engine(
    EngineSettings("m", (Path(sys.argv[1]),), "", context_length=64), lambda batch: [events.put(e) for e in batch]
)
engine.start()
while not isinstance(events.get(), Loaded):
    pass
print(journal.table.records()[0].pid, flush=True)
sys.stdin.read()
"""


def test_it_ends_with_its_server(smollm2: Path, tmp_path: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(smollm2), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    pid = int(server.stdout.readline())
    assert not is_gone(pid)
    server.kill()
    server.communicate()
    deadline = time.monotonic() + WAIT_S
    while not is_gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Its first step does not end, so that it is within a step when its process is killed.
AT_WORK = """
import sys
from pathlib import Path
from modelyard.engine.llama import Context
from modelyard.protocol.requests import Submit
from modelyard.protocol.values import SequenceId
from modelyard.protocol.prompts import Text
from modelyard.engine.settings import EngineSettings
from modelyard.yard.runtime.engine_hosts import EngineHosts
def decode(context, batch, length):
    print("at work", flush=True)
    sys.stdin.read()
    return 0
Context.decode = decode
hosts = EngineHosts(folder=Path(sys.argv[2]))
settings = EngineSettings("m", (Path(sys.argv[1]),), "", context_length=8192)
engine = hosts.engine(settings, lambda batch: None, is_isolated=False)
engine.start()
engine.send(Submit(SequenceId(1), Text("Once"), ignore_eos=True))
engine.join(60)
"""


def test_a_model_that_was_at_work_when_its_server_died_is_isolated_by_the_next(smollm2: Path, tmp_path: Path) -> None:
    def isolates() -> bool:
        hosts = EngineHosts(folder=tmp_path)
        try:
            return hosts.isolates([smollm2], "auto", is_tried=True, offloads=False)
        finally:
            hosts.close()

    assert not isolates()
    server = subprocess.Popen(
        [sys.executable, "-c", AT_WORK, str(smollm2), str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    assert server.stdout.readline()
    server.kill()
    server.communicate()
    assert isolates()


def test_what_was_never_tried_is_isolated(smollm2: Path, tmp_path: Path) -> None:
    hosts = EngineHosts(folder=tmp_path)
    assert hosts.isolates([smollm2], "auto", is_tried=False, offloads=False)
    assert not hosts.isolates([smollm2], "thread", is_tried=False, offloads=False)
    hosts.close()


def test_what_may_be_on_a_device_of_another_machine_is_isolated(smollm2: Path, tmp_path: Path) -> None:
    hosts = EngineHosts(folder=tmp_path)
    assert hosts.isolates([smollm2], "auto", is_tried=True, offloads=True, may_be_remote=True)
    assert not hosts.isolates([smollm2], "auto", is_tried=True, offloads=True)
    hosts.close()


def test_a_draft_model_lives_in_the_process_of_its_target(
    smollm2: Path, processes: EngineProcesses, journal: Journal, texts: dict[int, str]
) -> None:
    driven = Driven(smollm2, processes=processes, draft=(smollm2,), draft_name="itself")
    assert driven.answer(PROMPT, GREEDY) == texts[0]
    assert len(pids(journal)) == 1
    driven.stopped(Stop())


def test_an_engine_that_does_not_come_back_is_ended(
    smollm2: Path, processes: EngineProcesses, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_engine_state, "MAX_SILENT_S", 0.5)
    monkeypatch.setattr(engine_process, "POLL_S", 0.1)
    driven = Driven(smollm2, processes=processes)
    driven.submit(0, PROMPT)
    driven.until(lambda: bool(driven.texts))
    (pid,) = pids(journal)
    os.kill(pid, signal.SIGSTOP)
    driven.send(Cancel(FIRST))
    driven.until(lambda: driven.over is not None)
    assert isinstance(driven.over, Died)
    assert is_gone(pid)


def test_an_engine_whose_step_does_not_end_is_ended_although_nobody_asks_it_to(
    smollm2: Path, processes: EngineProcesses, journal: Journal, texts: dict[int, str]
) -> None:
    driven = Driven(smollm2, processes=processes)
    driven.submit(0, PROMPT, GREEDY)
    driven.until(lambda: len(driven.texts.get(FIRST, "")) > 20)
    (pid,) = pids(journal)
    os.kill(pid, signal.SIGSTOP)
    watch = StepWatch(
        journal.table,
        lambda activity, reason: processes.end(activity.pid, reason),
        StallBounds(still_s=0.5),
        poll_s=0.1,
    )
    watch.start()
    driven.until(lambda: driven.over is not None)
    watch.close()
    assert isinstance(driven.over, Died)
    assert "stopped by a signal" in driven.over.reason
    assert is_gone(pid)
    (state,) = [event.state for event in left(driven) if event.sequence == 0]
    again = Driven(smollm2, processes=processes)
    again.send(Resume(state))
    again.finished()
    assert driven.texts[FIRST] + again.texts.get(FIRST, "") == texts[0]
    again.stopped(Stop())


def test_a_request_that_cannot_be_sent_is_refused_and_the_engine_serves_on(
    smollm2: Path, processes: EngineProcesses, texts: dict[int, str]
) -> None:
    schema: dict[str, Any] = {}
    for _ in range(1000):
        schema = {"properties": schema}
    driven = Driven(smollm2, processes=processes)
    driven.submit(5, PROMPT, response_format=schema)
    driven.until(lambda: SequenceId(5) in driven.ended)
    refused = driven.ended[SequenceId(5)]
    assert isinstance(refused, Failed)
    assert "nested too deeply" in str(refused.error)
    assert refused.error.status == 400
    assert driven.answer(PROMPT, GREEDY) == texts[0]
    driven.stopped(Stop())
