"""Stored responses and conversations: their owners and bounds, and what a restart or a broken file leaves of them."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from modelyard.api.openai.responses import records
from modelyard.api.openai.responses.records import Record, RecordTable
from modelyard.api.openai.responses.store import ResponseStore
from modelyard.api.serving.request_memory import LEASE, RequestMemory
from modelyard.errors import InvalidRequest, ServerOverloaded, StoreUnavailable

A, B = b"a" * 32, b"b" * 32


def put(table: RecordTable, owner: bytes | None, names: list[str], size: int = 0) -> None:
    for name in names:
        table.put(Record(name, owner, {"text": "x" * size}))


def kept(table: RecordTable, owner: bytes | None, names: list[str]) -> list[str]:
    return [name for name in names if table.find(name, owner) is not None]


def ticking() -> Callable[[], float]:
    seconds = iter(range(1_000_000))
    return lambda: 1000.0 * next(seconds)


def test_responses_of_one_key_do_not_push_out_those_of_another() -> None:
    table = RecordTable(None, max_records=10, max_age_s=1e9, clock=ticking())
    few, many = ["a1", "a2"], [f"b{n}" for n in range(50)]
    put(table, A, few)
    put(table, B, many)
    assert kept(table, A, few) == few
    assert kept(table, B, many) == many[-8:]


def test_who_comes_late_has_an_equal_share() -> None:
    table = RecordTable(None, max_records=10, max_age_s=1e9, clock=ticking())
    early, late = [f"a{n}" for n in range(10)], [f"b{n}" for n in range(10)]
    put(table, A, early)
    put(table, B, late)
    assert (kept(table, A, early), kept(table, B, late)) == (early[-5:], late[-5:])


def test_bytes_are_shared_as_well() -> None:
    table = RecordTable(None, max_bytes=10_000, max_age_s=1e9, clock=ticking())
    put(table, A, ["a"], 500)
    large = [f"b{n}" for n in range(5)]
    put(table, B, large, 4000)
    assert kept(table, A, ["a"]) == ["a"]
    assert kept(table, B, large) == large[-2:]


def test_one_that_is_larger_than_all_the_rest_goes_alone() -> None:
    table = RecordTable(None, max_bytes=10_000)
    put(table, A, ["a"], 500)
    put(table, B, ["b"], 50_000)
    assert (kept(table, A, ["a"]), kept(table, B, ["b"])) == (["a"], [])


def test_what_was_used_last_stays_longest() -> None:
    table = RecordTable(None, max_records=3, max_age_s=1e9, clock=ticking())
    put(table, None, ["r1", "r2", "r3"])
    assert table.find("r1", None) is not None
    put(table, None, ["r4"])
    assert kept(table, None, ["r1", "r2", "r3", "r4"]) == ["r1", "r3", "r4"]


def test_what_is_not_used_for_long_is_dropped() -> None:
    now = [0.0]
    table = RecordTable(None, max_age_s=100, clock=lambda: now[0])
    put(table, None, ["old"])
    now[0] = 101.0
    assert kept(table, None, ["old"]) == []
    put(table, None, ["new"])
    now[0] = 0.0
    assert kept(table, None, ["old", "new"]) == ["new"]


def test_a_record_is_found_by_its_owner_alone_and_so_are_its_items() -> None:
    table = RecordTable(None)
    table.put(Record("r", A, {"output": [{"id": "out", "n": 1}]}, [{"id": "in"}], [{"id": "earlier"}]))
    for owner in (B, None):
        assert table.find("r", owner) is None
        assert table.items(["in"], owner) == {}
        assert not table.delete("r", owner)
    found = table.find("r", A)
    assert found is not None
    assert [item["id"] for item in found.context] == ["earlier", "in", "out"]
    assert table.items(["out", "in", "unknown", "in"], A) == {"out": {"id": "out", "n": 1}, "in": {"id": "in"}}
    assert table.delete("r", A)
    assert table.items(["in"], A) == {}


def test_a_record_with_many_wanted_items_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table = RecordTable(None)
    for record in ("r1", "r2"):
        table.put(Record(record, A, {}, [{"id": f"{record}-{n}"} for n in range(50)]))
    read: list[str] = []
    find = table.find

    def counting(id: str, owner: bytes | None) -> Record | None:  # noqa: A002 (as in the table)
        read.append(id)
        return find(id, owner)

    monkeypatch.setattr(table, "find", counting)
    wanted = [f"{record}-{n}" for n in range(50) for record in ("r1", "r2")]
    assert set(table.items(wanted, A)) == set(wanted)
    assert sorted(read) == ["r1", "r2"]


def test_a_record_that_is_too_large_is_refused_and_the_earlier_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 1000)
    table = RecordTable(None)
    table.put(Record("conv_1", None, {}, [{"id": "i"}]))
    with pytest.raises(InvalidRequest, match="1,000 are the most"):
        table.change("conv_1", None, lambda record: replace(record, items=[*record.items, {"text": "x" * 1000}]))
    found = table.find("conv_1", None)
    assert found is not None
    assert found.items == [{"id": "i"}]


async def test_of_a_response_that_is_too_large_nothing_stays_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 1000)
    store = ResponseStore()
    store.keep(Record("resp_1", None, {"status": "failed"}))
    with caplog.at_level(logging.WARNING):
        store.keep(Record("resp_1", None, {"status": "completed"}, [{"text": "x" * 1000}]))
        assert await store.find("resp_1", None) is None
    assert [record.message.split(":")[0] for record in caplog.records] == ["Did not store resp_1"]
    store.close()


async def test_a_change_that_nobody_waits_for_is_logged_with_its_failure(caplog: pytest.LogCaptureFixture) -> None:
    def fail(record: Record) -> Record:
        raise RuntimeError(f"{record.id} is odd")

    store = ResponseStore()
    store.keep(Record("r", None, {}))
    store.change_later("r", None, fail)
    store.close()
    assert "Could not change r." in caplog.text
    assert "RuntimeError: r is odd" in caplog.text


async def test_a_conversation_whose_file_fails_is_unavailable_and_not_missing(tmp_path: Path) -> None:
    path = tmp_path / "server.sqlite"
    store = ResponseStore(path)
    store.keep(Record("conv_1", A, {}))
    assert await store.find("conv_1", A) is not None
    # Another program has taken the tables away while the server runs.
    with closing(sqlite3.connect(path)) as other:
        other.execute("ALTER TABLE records RENAME TO elsewhere")
        other.commit()
    with pytest.raises(StoreUnavailable, match="no such table"):
        await store.change("conv_1", A, lambda record: record)
    with pytest.raises(StoreUnavailable):
        await store.delete("conv_1", A)
    # What is stored meanwhile is in memory, and found there.
    store.keep(Record("resp_1", A, {"n": 1}))
    assert await store.find("resp_1", A) is not None
    store.close()


async def test_a_store_that_was_closed_opens_its_file_again(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path / "server.sqlite")
    store.keep(Record("r", A, {}))
    store.close()
    assert await store.find("r", A) is not None
    store.close()
    store.close()


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "responses" / "server.sqlite"
    store = ResponseStore(path)
    store.keep(Record("r", A, {"text": "Hello"}))
    store.change_later("r", A, lambda record: replace(record, items=[{"id": "i"}]))
    store.close()
    again = ResponseStore(path)
    found = await again.find("r", A)
    assert found is not None
    assert (found.head, found.items) == ({"text": "Hello"}, [{"id": "i"}])
    assert await again.delete("r", A)
    again.close()
    assert b"Hello" not in path.read_bytes()
    assert path.stat().st_mode & 0o077 == path.parent.stat().st_mode & 0o077 == 0


async def test_without_a_file_records_are_found_until_the_end() -> None:
    store = ResponseStore()
    store.keep(Record("r", None, {"n": 1}))
    assert await store.find("r", None) is not None
    assert not await store.delete("other", None)
    store.close()


async def test_where_the_file_cannot_be_used_records_are_in_memory_and_the_log_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "server.sqlite"
    path.write_bytes(b"This is no database. " * 100)
    store = ResponseStore(path)
    with caplog.at_level(logging.WARNING):
        for name in ("r1", "r2"):
            store.keep(Record(name, None, {}))
        assert await store.find("r1", None) is not None
        assert await store.find("r2", None) is not None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(path) in caplog.text
    assert path.read_bytes().startswith(b"This is no database.")
    store.close()


async def test_what_is_read_counts_as_memory_of_the_request_that_reads_it() -> None:
    store, memory = ResponseStore(), RequestMemory(100 << 20, max_wait_s=0.01)
    text = "x" * (1 << 20)
    await store.put(Record("resp_1", None, {"output": [{"id": "msg_1", "text": text}]}))

    async def used(read: Callable[[], Awaitable[object]]) -> int:
        with memory.lease() as lease:
            outer = LEASE.set(lease)
            try:
                assert await read()
                return memory.used
            finally:
                LEASE.reset(outer)

    try:
        assert await used(lambda: store.find("resp_1", None)) > len(text)
        assert await used(lambda: store.items(["msg_1"], None)) > len(text)
        assert memory.used == 0
        with memory.lease() as other:
            await other.grow(99 << 20)
            with pytest.raises(ServerOverloaded):
                await used(lambda: store.find("resp_1", None))
    finally:
        store.close()
