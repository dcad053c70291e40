"""A model that a server died of gets a process of its own until it has served well for an hour."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Literal

import pytest

from modelyard.engine.scheduling.engine_table import Doing, EngineActivity
from modelyard.yard.runtime.isolation import (
    MAX_DEATHS,
    MEMORY_S,
    PROBATION_S,
    Death,
    IsolationRecord,
    IsolationRecords,
    is_isolated,
)

DIGEST = "0123456789abcdef0123456789abcdef"
NOW = 1_800_000_000.0
CLEAN = IsolationRecord()
SUSPECT = IsolationRecord((Death(NOW - 60, "it crashed"),), served_s=PROBATION_S - 1)
REFORMED = IsolationRecord((Death(NOW - 9000, "it crashed"),), served_s=PROBATION_S)
LONG_AGO = IsolationRecord((Death(NOW - MEMORY_S - 1, "it crashed"),))
LONG_AGO_AND_NOW = IsolationRecord((*LONG_AGO.deaths, Death(NOW, "it crashed")))


@pytest.fixture
def records(tmp_path: Path) -> IsolationRecords:
    return IsolationRecords(tmp_path / "isolation")


@pytest.mark.parametrize(
    ("mode", "record", "auto_default", "isolated"),
    [
        ("thread", None, "process", False),
        ("thread", SUSPECT, "process", False),
        ("process", None, "thread", True),
        ("process", REFORMED, "thread", True),
        ("auto", None, "thread", False),
        ("auto", CLEAN, "thread", False),
        ("auto", SUSPECT, "thread", True),
        ("auto", REFORMED, "thread", False),
        ("auto", LONG_AGO, "thread", False),
        ("auto", LONG_AGO_AND_NOW, "thread", True),
        ("auto", None, "process", True),
        ("auto", REFORMED, "process", True),
    ],
)
def test_what_is_configured_and_what_is_known_decide(
    mode: Literal["auto", "thread", "process"],
    record: IsolationRecord | None,
    auto_default: Literal["thread", "process"],
    isolated: bool,
) -> None:
    assert is_isolated(mode, record, NOW, auto_default) is isolated


def test_a_death_is_remembered_by_the_next_server(tmp_path: Path) -> None:
    IsolationRecords(tmp_path).note_death(DIGEST, "smol", "it crashed", NOW)
    assert IsolationRecords(tmp_path).find(DIGEST) == IsolationRecord((Death(NOW, "it crashed"),), model="smol")
    assert IsolationRecords(tmp_path).find("f" * 32) is None


def test_serving_well_adds_up_until_another_death(records: IsolationRecords) -> None:
    records.note_death(DIGEST, "smol", "it crashed", NOW)
    records.note_served(DIGEST, 1000)
    records.note_served(DIGEST, 2600)
    served = records.find(DIGEST)
    assert served is not None
    assert served.served_s == 3600
    assert not is_isolated("auto", served, NOW, "thread")
    records.note_death(DIGEST, "smol", "again", NOW + 1)
    again = records.find(DIGEST)
    assert again is not None
    assert (again.served_s, [death.reason for death in again.deaths]) == (0.0, ["it crashed", "again"])


def test_nothing_is_kept_of_a_model_that_nothing_died_of(records: IsolationRecords, tmp_path: Path) -> None:
    records.note_served(DIGEST, 1000)
    assert records.find(DIGEST) is None
    assert list(tmp_path.iterdir()) == []


def test_only_the_newest_deaths_are_kept(records: IsolationRecords) -> None:
    for number in range(MAX_DEATHS + 5):
        records.note_death(DIGEST, "smol", str(number), NOW + number)
    found = records.find(DIGEST)
    assert found is not None
    assert [death.reason for death in found.deaths] == [str(number) for number in range(5, MAX_DEATHS + 5)]


@pytest.mark.parametrize(
    ("doing", "reason"),
    [
        ("loading", "the program that served it ended abnormally while it was loaded"),
        ("computing", "the program that served it ended abnormally during an answer"),
        ("reading", "the program that served it ended abnormally while it read a prompt"),
        ("saving", "the program that served it ended abnormally while it saved prompts"),
        ("restoring", "the program that served it ended abnormally while it restored prompts"),
        ("resizing", "the program that served it ended abnormally while it gave its context another size"),
        ("idle", None),
    ],
)
def test_a_model_with_something_to_do_when_its_server_died_is_a_suspect(
    records: IsolationRecords, doing: Doing, reason: str | None
) -> None:
    records.note_suspects([EngineActivity("smol", DIGEST, 7, doing, (), ())], NOW)
    found = records.find(DIGEST)
    assert (None if found is None else found.deaths) == (None if reason is None else (Death(NOW, reason),))


def test_a_model_whose_files_were_not_read_yet_cannot_be_a_suspect(records: IsolationRecords, tmp_path: Path) -> None:
    records.note_suspects([EngineActivity("smol", "", 7, "loading", (), ())], NOW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"deaths": [], "served_s": 0, "model": ""}',
        '{"format": 2, "deaths": [], "served_s": 0, "model": ""}',
        '{"format": 1, "deaths": 3, "served_s": 0, "model": ""}',
        '{"format": 1, "deaths": [{"at": "soon", "reason": ""}], "served_s": 0, "model": ""}',
        f'{{"format": 1, "deaths": [], "served_s": 1{"0" * 400}, "model": ""}}',
        "[" * 100_000,
        "\udcff",
    ],
)
def test_a_file_that_cannot_be_read_is_replaced_by_the_next_death(
    records: IsolationRecords, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "isolation" / f"{DIGEST}.json"
    path.parent.mkdir()
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert records.find(DIGEST) is None
    records.note_death(DIGEST, "smol", "it crashed", NOW)
    assert json.loads(path.read_text())["deaths"] == [{"at": NOW, "reason": "it crashed"}]


def test_a_folder_that_cannot_be_written_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "isolation").write_text("a file")
    with caplog.at_level(logging.WARNING):
        IsolationRecords(tmp_path / "isolation").note_death(DIGEST, "smol", "it crashed", NOW)
    assert "What is known of the deaths of smol cannot be remembered" in caplog.text


def test_no_death_is_lost_between_threads(records: IsolationRecords) -> None:
    threads = [
        threading.Thread(target=records.note_death, args=(DIGEST, "smol", str(number), NOW)) for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = records.find(DIGEST)
    assert found is not None
    assert {death.reason for death in found.deaths} == set(map(str, range(8)))
