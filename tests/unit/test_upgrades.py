"""Files that another version has written: each kind is taken, or left alone or dropped, and never misread.

docs/upgrading.md has the table of these kinds. What asks a file for its version is changed here, in place of the files.
"""

from __future__ import annotations

import json
import logging
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from modelyard.api.openai.responses.records import Record, RecordTable
from modelyard.cli.chat.conversation import Conversation
from modelyard.cli.chat.transcripts import UnreadableConversation, from_saved, to_saved
from modelyard.config.added import AddedModels
from modelyard.engine.hosts.journal import leftover_journals
from modelyard.engine.hosts.trial_task import TrialLimits, TrialTask
from modelyard.engine.kv.disk import KvDiskCache, Unsaved
from modelyard.engine.scheduling import engine_table
from modelyard.engine.settings import EngineSettings
from modelyard.hub.preparation import conversion_key
from modelyard.hub.select.select import Decision
from modelyard.hub.sources.listing import Listing
from modelyard.yard.runtime import isolation, trials
from modelyard.yard.runtime.isolation import IsolationRecords
from modelyard.yard.runtime.trials import TrialOutcome, TrialRecords, trial_key

DOCS = Path(__file__).parents[2] / "docs"


def test_a_model_is_tried_again_by_a_version_that_tries_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "m.gguf"
    weights.write_bytes(b"weights")
    settings = EngineSettings("small", (weights,), "Q4_0", context_length=512)
    task = TrialTask(settings, 100, repacks=True, limits=TrialLimits(1.0, 1.0, 1 << 30))
    records = TrialRecords(tmp_path / "trials")
    records.note(trial_key(task), TrialOutcome(None), "small")
    assert records.find(trial_key(task)) is not None
    monkeypatch.setattr(trials, "_RECIPE", trials._RECIPE + 1)
    assert records.find(trial_key(task)) is None


def test_deaths_that_another_version_recorded_isolate_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = "0" * 32
    IsolationRecords(tmp_path).note_death(digest, "small", "it crashed", 1.0)
    monkeypatch.setattr(isolation, "_FORMAT", isolation._FORMAT + 1)
    assert IsolationRecords(tmp_path).find(digest) is None
    IsolationRecords(tmp_path).note_death(digest, "small", "again", 2.0)
    known = IsolationRecords(tmp_path).find(digest)
    assert known is not None
    assert [death.reason for death in known.deaths] == ["again"]


def test_a_model_is_converted_again_by_a_version_that_converts_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.gguf").write_bytes(b"weights")
    decision = Decision(Listing(str(tmp_path), (), folder=tmp_path), ("m.gguf",), "gguf", None, None, ())
    key = conversion_key.conversion_key(decision, "Q8_0")
    assert conversion_key.conversion_key(decision, "Q8_0") == key
    monkeypatch.setattr(conversion_key, "_RECIPE", conversion_key._RECIPE + 1)
    assert conversion_key.conversion_key(decision, "Q8_0") != key


def test_a_kept_prompt_with_another_version_in_its_head_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = KvDiskCache(tmp_path, "weights and settings", 1 << 20)
    cache.save([Unsaved((1, 2, 3), lambda: np.zeros(16, np.uint8))])
    (file,) = tmp_path.iterdir()
    contents = bytearray(file.read_bytes())
    version = slice(4, 8)
    contents[version] = (int.from_bytes(contents[version], "little") + 1).to_bytes(4, "little")
    file.write_bytes(contents)
    with caplog.at_level(logging.WARNING):
        assert list(cache.load(1000, 10)) == []
    assert f"Deleting the kept prompt {file.name}" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_journal_of_another_version_accuses_no_model(tmp_path: Path) -> None:
    signature = engine_table._SIGNATURE.to_bytes(8, "little")
    others = {"older": signature[:-1] + b"1", "newer": signature[:-1] + b"9"}
    for name, other in others.items():
        (tmp_path / f"{name}.engines").write_bytes(other + b"\x01" * (engine_table.TABLE_BYTES - 8))
    (tmp_path / "longer.engines").write_bytes(signature + b"\x01" * engine_table.TABLE_BYTES)
    for path in tmp_path.iterdir():
        path.chmod(0o600)
    assert leftover_journals(tmp_path) == ()
    assert list(tmp_path.iterdir()) == []


def test_stored_responses_of_another_version_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "responses.sqlite"
    RecordTable(path).put(Record("resp_1", None, {"id": "resp_1"}))
    assert RecordTable(path).find("resp_1", None) is not None
    database = sqlite3.connect(path)
    database.execute("ALTER TABLE records RENAME COLUMN head TO beginning")
    database.execute("PRAGMA user_version = 999")
    database.commit()
    database.close()
    table = RecordTable(path)
    assert table.find("resp_1", None) is None
    table.put(Record("resp_2", None, {"id": "resp_2"}))
    assert RecordTable(path).find("resp_2", None) is not None


def test_a_saved_conversation_of_another_version_is_refused_by_that_reason() -> None:
    fields = json.loads(to_saved(Conversation(None, (), 0), "small"))
    other = {**fields, "modelyard_conversation": fields["modelyard_conversation"] + 1}
    with pytest.raises(UnreadableConversation, match="of another version"):
        from_saved(json.dumps(other).encode())


def test_an_added_model_with_a_key_that_is_unknown_is_left_out_with_its_file_named_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "small.toml"
    path.write_text('[[models]]\nmodel_id = "org/small"\nalias = "small"\nkey_of_a_later_version = 1\n')
    (tmp_path / "other.toml").write_text('[[models]]\nmodel_id = "org/other"\nalias = "other"\n')
    with caplog.at_level(logging.WARNING):
        assert [added.model.id for added in AddedModels(tmp_path).entries()] == ["other"]
    assert "small.toml" in caplog.text
    assert "key_of_a_later_version" in caplog.text
    assert path.exists()


def test_each_folder_that_this_version_writes_to_is_in_the_table_of_the_guide() -> None:
    guide = (DOCS / "upgrading.md").read_text("utf-8")
    source = "\n".join(path.read_text("utf-8") for path in (DOCS.parent / "src" / "modelyard").rglob("*.py"))
    folders = set(re.findall(r'own_cache\(\) / "([a-z]+)"', source))
    assert {"converted", "trials", "kv", "isolation", "responses"} <= folders
    assert [name for name in sorted(folders) if f"`{name}/`" not in guide] == []
