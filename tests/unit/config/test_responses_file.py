"""Where a server keeps the responses that clients store."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.config import validate_config
from modelyard.config.server import Server


def server(base: Path, **fields: object) -> Server:
    return validate_config({"models": [{"model_id": "m"}], "server": fields}, base=base).server


def test_each_address_has_a_file_of_its_own_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "modelyard" / "responses"
    assert server(tmp_path).responses_file("127.0.0.1", 1234) == folder / "127.0.0.1_1234.sqlite"
    assert server(tmp_path).responses_file("::1", 80) == folder / "__1_80.sqlite"
    assert server(tmp_path).responses_file("../../x", 80) == folder / ".._.._x_80.sqlite"


def test_a_folder_is_relative_to_the_configuration(tmp_path: Path) -> None:
    chosen = server(tmp_path, responses_dir="kept").responses_file("127.0.0.1", 1234)
    assert chosen == tmp_path / "kept" / "127.0.0.1_1234.sqlite"


def test_in_memory_and_on_any_free_port_there_is_no_file(tmp_path: Path) -> None:
    assert server(tmp_path, keep_responses="memory").responses_file("127.0.0.1", 1234) is None
    assert server(tmp_path).responses_file("127.0.0.1", 0) is None
