"""Each engine writes its own record; every process of the server sees what all of them do."""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.engine.hosts.journal import Journal, open_journal
from modelyard.engine.scheduling import engine_table
from modelyard.engine.scheduling.engine_table import (
    GENERATION,
    MAX_COMPUTING,
    MAX_ENGINES,
    MAX_READING,
    TABLE_BYTES,
    EngineActivity,
    EngineTable,
    activities_in,
)
from modelyard.errors import EngineError
from support.table_process import table_process

DIGEST = "0123456789abcdef0123456789abcdef"
WAIT_S = 30.0


@pytest.fixture
def table() -> EngineTable:
    return EngineTable()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = open_journal(tmp_path)
    yield journal
    journal.close()


def the_one(table: EngineTable) -> EngineActivity:
    (activity,) = table.records()
    return activity


def test_a_record_says_which_model_its_engine_serves_and_what_it_does(table: EngineTable) -> None:
    record = table.claim("org/smol")
    assert the_one(table) == EngineActivity("org/smol", "", os.getpid(), "idle", (), ())
    record.name_files(DIGEST)
    record.doing = "loading"
    assert the_one(table) == EngineActivity("org/smol", DIGEST, os.getpid(), "loading", (), ())
    assert record.doing == "loading"


def test_the_sequences_of_a_step_are_told_until_it_ends(table: EngineTable) -> None:
    record = table.claim("smol")
    record.begin_step([3, 2**64 - 1, 0], 12)
    assert (the_one(table).doing, the_one(table).computing) == ("computing", (3, 2**64 - 1, 0))
    assert (the_one(table).step, the_one(table).tokens) == (1, 12)
    record.begin_step([4], 1)
    assert the_one(table).computing == (4,)
    assert (the_one(table).step, the_one(table).tokens) == (2, 1)
    record.end_step()
    assert (the_one(table).doing, the_one(table).computing) == ("idle", ())


def test_another_occupation_ends_a_step(table: EngineTable) -> None:
    record = table.claim("smol")
    record.begin_step([3], 1)
    record.doing = "saving"
    assert (the_one(table).doing, the_one(table).computing) == ("saving", ())


def test_of_a_step_with_too_many_sequences_the_first_are_told(table: EngineTable) -> None:
    table.claim("smol").begin_step(range(MAX_COMPUTING + 1), 1)
    assert the_one(table).computing == tuple(range(MAX_COMPUTING))


def test_prompts_are_read_beside_a_step(table: EngineTable) -> None:
    record = table.claim("smol")
    record.begin_reading(0)
    with record.reading(8):
        assert (the_one(table).doing, the_one(table).reading) == ("reading", (0, 8))
        record.begin_step([5], 1)
        assert the_one(table) == EngineActivity("smol", "", os.getpid(), "computing", (5,), (0, 8))
        record.end_step()
    assert the_one(table).reading == (0,)
    record.end_reading(0)
    assert the_one(table).doing == "idle"


def test_a_prompt_that_cannot_be_read_is_not_read_any_more(table: EngineTable) -> None:
    record = table.claim("smol")
    with pytest.raises(ValueError, match="template"), record.reading(8):
        raise ValueError("template")
    assert the_one(table).reading == ()


def test_a_prompt_too_many_is_read_without_a_note(table: EngineTable) -> None:
    record = table.claim("smol")
    for request in range(MAX_READING + 1):
        record.begin_reading(request)
    assert the_one(table).reading == tuple(range(MAX_READING))
    record.end_reading(MAX_READING)
    record.end_reading(3)
    record.begin_reading(100)
    assert set(the_one(table).reading) == {*range(MAX_READING), 100} - {3}


def test_a_name_is_cut_between_characters(table: EngineTable) -> None:
    table.claim("x" * 63 + "ä")
    assert the_one(table).name == "x" * 63


def test_a_record_that_was_released_is_free_and_its_last_writers_disturb_nobody(table: EngineTable) -> None:
    first = table.claim("first")
    first.begin_reading(7)
    table.release(first)
    assert table.records() == ()
    second = table.claim("second")
    assert second.index == first.index
    first.end_reading(7)
    first.begin_step([1], 1)
    first.doing = "loading"
    assert the_one(table) == EngineActivity("second", "", os.getpid(), "idle", (), ())


def test_an_engine_too_many_is_refused(table: EngineTable, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(MAX_ENGINES):
        table.claim(str(number))
    with pytest.raises(EngineError, match=r"'more'.*all 256 records of engines are taken"):
        table.claim("more")


def test_every_change_of_who_takes_part_is_another_generation(table: EngineTable) -> None:
    record, seen = table.claim("smol"), set()
    for change in (
        lambda: table.take_part(record, takes_part=True),
        lambda: table.take_part(record, takes_part=False),
        lambda: table.release(record),
        table.announce,
    ):
        change()
        seen.add(table.words[GENERATION])
    assert len(seen) == 4


def test_another_process_sees_what_engines_do_here_and_the_reverse(journal: Journal) -> None:
    journal.table.claim("here").begin_step([1, 2], 1)
    program = """
table = EngineTable.open(path)
say([engine.computing for engine in table.records() if engine.name == "here"])
record = table.claim("there")
record.name_files("00112233445566778899aabbccddeeff")
record.begin_step([3], 1)
record.begin_reading(4)
say("computes")
hear()
"""
    with table_process(program, journal.path, journal.table) as child:
        assert child.heard() == "[(1, 2)]"
        assert child.heard() == "computes"
        assert journal.table.records()[1] == EngineActivity(
            "there", "00112233445566778899aabbccddeeff", child.pid, "computing", (3,), (4,)
        )


def test_what_a_process_did_when_it_was_killed_is_told_by_freeing_its_records(journal: Journal) -> None:
    own = journal.table.claim("here")
    program = "EngineTable.open(path).claim('there').begin_step([3], 1); say('computes'); hear()"
    with table_process(program, journal.path, journal.table) as child:
        assert child.heard() == "computes"
        child.kill()
        (activity,) = journal.table.release_of(child.pid)
        assert (activity.name, activity.computing) == ("there", (3,))
        assert journal.table.release_of(child.pid) == ()
    assert [engine.name for engine in journal.table.records()] == ["here"]
    assert own.doing == "idle"


def test_a_process_gets_one_record_for_each_reservation(journal: Journal) -> None:
    program = """
from modelyard.errors import EngineError
table = EngineTable.open(path)
record = table.claim("one")
try:
    table.claim("two")
except EngineError as refused:
    say(refused.reason)
table.release(record)
say(table.claim("again").index == record.index)
hear()
"""
    with table_process(program, journal.path, journal.table) as child:
        assert child.heard() == f"no record was reserved for its process {child.pid} in the table of engines"
        assert child.heard() == "True"
        assert [engine.name for engine in journal.table.records()] == ["again"]


@pytest.mark.parametrize("contents", [b"x", bytes(TABLE_BYTES), b"MYARDET0".ljust(TABLE_BYTES, b"\0")])
def test_another_file_is_no_table(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "other.engines"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"other\.engines is not a table of engines"):
        EngineTable.open(path)
    assert activities_in(contents) == ()


def test_any_bytes_behind_a_signature_can_be_read() -> None:
    contents = b"MYARDET2" + b"\xff" * (TABLE_BYTES - 8)
    assert len(activities_in(contents)) == MAX_ENGINES
    assert {len(activity.computing) for activity in activities_in(contents)} == {MAX_COMPUTING}


def test_a_reader_never_sees_sequences_of_two_steps(journal: Journal) -> None:
    """The child begins steps whose ids are all the same number, as many of them as the number says."""
    program = f"""
record = EngineTable.open(path).claim("busy")
say("computes")
step = 0
while True:
    step += 1
    count = 1 + step % {MAX_COMPUTING}
    record.begin_step([step] * count, 1)
"""
    with table_process(program, journal.path, journal.table) as child:
        assert child.heard() == "computes"
        steps = set()
        while len(steps) < 40:
            (activity,) = journal.table.records()
            if activity.computing:
                (step,) = set(activity.computing)
                assert len(activity.computing) == 1 + step % MAX_COMPUTING
                steps.add(step)


def test_whenever_a_process_dies_the_sequences_it_leaves_are_those_of_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the table after each single store is what a death at that moment leaves."""
    memory = mmap.mmap(-1, TABLE_BYTES)
    record = EngineTable(memory).claim("smol")
    left: list[tuple[int, ...]] = []

    def look() -> None:
        left.extend(activity.computing for activity in activities_in(bytes(memory)))

    class Words:
        def __init__(self, words: memoryview[int]) -> None:
            self._words = words

        def __setitem__(self, place: int, word: int) -> None:
            self._words[place] = word
            look()

    class Ids:
        def pack_into(self, target: memoryview[int], at: int, *ids: int) -> None:
            for number, one in enumerate(ids):
                struct.pack_into("@Q", target, at + 8 * number, one)
                look()

    monkeypatch.setattr(record, "_words", Words(record._words))
    monkeypatch.setattr(engine_table, "_IDS", [Ids()] * 4)
    # One step may follow another without an end between them.
    for ids in ([1, 1, 1], [2, 2], [3, 3, 3]):
        record.begin_step(ids, 1)
    record.end_step()
    assert set(left) == {(), (1, 1, 1), (2, 2), (3, 3, 3)}


def test_threads_of_an_engine_note_what_they_read_without_losing_any(table: EngineTable) -> None:
    record = table.claim("smol")
    begun, go_on = threading.Barrier(9), threading.Event()

    def read(request: int) -> None:
        for _ in range(200):
            with record.reading(request):
                pass
        with record.reading(request):
            begun.wait(WAIT_S)
            assert go_on.wait(WAIT_S)

    threads = [threading.Thread(target=read, args=(request,), daemon=True) for request in range(8)]
    for thread in threads:
        thread.start()
    begun.wait(WAIT_S)
    assert set(the_one(table).reading) == set(range(8))
    go_on.set()
    for thread in threads:
        thread.join(WAIT_S)
    assert the_one(table).reading == ()
