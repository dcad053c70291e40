"""Real models pass their trial, of whatever kind they are; a model's outcome is kept, and a key turns trials off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.config import validate_config
from modelyard.engine.hosts.trial import run_trial
from modelyard.engine.hosts.trial_task import trial_of
from modelyard.engine.settings import EngineSettings
from modelyard.errors import ModelLoadFailed
from modelyard.formats.gguf.read import read_header
from modelyard.yard.memory.layer_shapes import vocabulary_size
from modelyard.yard.runtime import engine_factory
from modelyard.yard.runtime.trials import Trials
from support.gguf_writer import tiny_model, write
from support.server import serving


def passes(path: Path, **settings: Any) -> bool:
    header = read_header(path)
    tried = EngineSettings(path.stem, (path,), "", **settings)
    steps: list[str] = []

    def report(step: str) -> bool:
        steps.append(step)
        return True

    run_trial(
        trial_of(
            tried,
            file_bytes=header.file_size,
            trained_context=header.context_length,
            vocabulary_size=vocabulary_size(header),
            cores=2,
        ),
        report,
    )
    return "unloading" in steps


def test_models_of_each_kind_pass(weights: dict[str, Path], minilm: Path) -> None:
    assert passes(weights["smollm2"], kv_type="q8_0")
    assert passes(minilm, kind="embedding")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(engine_factory, "Trials", Trials)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "modelyard" / "trials"


def config(path: Path, **runtime: Any) -> Any:
    return validate_config(
        {"models": [{"model_id": str(path), "alias": "tiny"}], "runtime": runtime}, source="test", base=path.parent
    )


def test_a_model_is_tried_before_it_is_first_served_and_never_again(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "tiny.gguf", tiny_model())
    body = {"model": "tiny", "prompt": "abc", "max_tokens": 1}
    with serving(config(path)) as server:
        assert server.post("/v1/completions", body).status_code == 200
    (record,) = cache.iterdir()
    assert json.loads(record.read_text()) == {"model": "tiny", "failure": None}
    # What it says counts, so that nothing is tried again.
    record.write_text(json.dumps({"model": "tiny", "failure": "It failed before."}))
    with pytest.raises(ModelLoadFailed, match=r"It failed before\."), serving(config(path)):
        pass


def test_a_key_turns_trials_off(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "tiny.gguf", tiny_model())
    with serving(config(path, trial=False)) as server:
        answer = server.post("/v1/completions", {"model": "tiny", "prompt": "abc", "max_tokens": 1})
        assert answer.status_code == 200
    assert not cache.exists()
