"""How the page is built: with which Node, when again, and what becomes of a failure."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import build_ui
import pytest

# Stands for npm: notes what it is asked for, and builds a page where it is asked to.
NPM = """
import pathlib, sys
root = pathlib.Path.cwd().parent
with (root / "asked").open("a") as asked:
    asked.write(" ".join(sys.argv[1:3]) + "\\n")
if (root / "broken").exists():
    sys.exit(1)
if sys.argv[1] == "ci":
    (root / "web/node_modules").mkdir(exist_ok=True)
if sys.argv[1:3] == ["run", "build"]:
    (root / "static/assets").mkdir(parents=True, exist_ok=True)
    (root / "static/index.html").write_text("<!doctype html>" + " " * 2000)
    (root / "static/assets/tiny.js").write_text("1")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with sources of a page, and a Node."""
    (tmp_path / "web/src").mkdir(parents=True)
    (tmp_path / "web/package-lock.json").write_text("{}")
    (tmp_path / "web/src/main.ts").write_text("1")
    (tmp_path / "npm.py").write_text(NPM)
    node = build_ui.Node([sys.executable, str(tmp_path / "npm.py")], tmp_path)
    monkeypatch.setattr(build_ui, "ROOT", tmp_path)
    monkeypatch.setattr(build_ui, "WEB", tmp_path / "web")
    monkeypatch.setattr(build_ui, "STATIC", tmp_path / "static")
    monkeypatch.setattr(build_ui, "system_node", lambda: node)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["build_ui.py", *options])
    return build_ui.main()


def asked(folder: Path) -> list[str]:
    """What npm was asked for since the last call."""
    path = folder / "asked"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_it_is_built_once_and_again_where_sources_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch) == 0
    assert asked(folder) == ["ci --ignore-scripts", "run build"]
    assert run(monkeypatch) == 0
    assert asked(folder) == []
    (folder / "web/src/main.ts").write_text("2")
    assert run(monkeypatch) == 0
    assert asked(folder) == ["run build"]
    (folder / "web/package-lock.json").write_text('{"name": "page"}')
    assert run(monkeypatch) == 0
    assert asked(folder) == ["ci --ignore-scripts", "run build"]


def test_files_that_gain_by_it_are_compressed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch) == 0
    static = folder / "static"
    assert gzip.decompress((static / "index.html.gz").read_bytes()) == (static / "index.html").read_bytes()
    assert not (static / "assets/tiny.js.gz").exists()


def test_a_failure_is_an_error_or_a_warning_and_is_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken").touch()
    assert run(monkeypatch) == 1
    assert run(monkeypatch, "--optional") == 0
    assert "`npm ci --ignore-scripts` failed" in capfd.readouterr().err
    (folder / "broken").unlink()
    assert run(monkeypatch) == 0
    assert (folder / "static/index.html").exists()


def test_without_a_node_it_says_where_one_comes_from_and_checks_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build_ui, "system_node", lambda: None)
    monkeypatch.setattr(build_ui, "packaged_node", lambda: None)
    assert run(monkeypatch) == 1
    assert "make install" in capsys.readouterr().err
    assert run(monkeypatch, "--check") == 0
    assert "not checked" in capsys.readouterr().out
    assert asked(folder) == []


def test_the_check_runs_that_of_the_sources(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "--check") == 0
    assert asked(folder) == ["ci --ignore-scripts", "run check"]


@pytest.mark.parametrize(
    ("version", "is_enough"), [("v20.19.0", True), ("v24.1.0", True), ("v20.9.0", False), ("", False)]
)
def test_an_old_node_is_not_taken(tmp_path: Path, version: str, is_enough: bool) -> None:
    node = tmp_path / "node"
    node.write_text(f"#!/bin/sh\necho {version}\n")
    node.chmod(0o755)
    assert build_ui.is_new_enough(str(node)) is is_enough
    assert not build_ui.is_new_enough(str(tmp_path / "nothing"))
