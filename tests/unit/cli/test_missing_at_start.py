"""Models that are not there, said when a server is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modelyard.cli import app
from modelyard.cli.exit_codes import MODEL, OK


@pytest.fixture(autouse=True)
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Configurations with which a server would have been started."""
    configs: list[Any] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modelyard.cli.hosting.host_server", lambda config, *_, **__: configs.append(config))
    return configs


def start(text: str) -> Any:
    Path("models.toml").write_text(text)
    return CliRunner().invoke(app, ["from-config", "models.toml"])


def test_a_missing_model_that_is_loaded_on_demand_is_a_warning(started: list[Any], tmp_path: Path) -> None:
    result = start("[[models]]\nmodel_id = './none.gguf'\nload = 'on-demand'\n")
    assert (result.exit_code, len(started)) == (OK, 1)
    assert "models.toml:2:12: " in result.stderr
    assert f"'./none.gguf' does not exist: there is no {tmp_path / 'none.gguf'}." in result.stderr


def test_a_missing_model_that_is_loaded_at_the_start_ends_it(started: list[Any]) -> None:
    result = start("[[models]]\nmodel_id = './none.gguf'\n[[models]]\nmodel_id = './two.gguf'\nload = 'on-demand'\n")
    assert (result.exit_code, started) == (MODEL, [])
    assert "models.toml:2:12: " in result.stderr
