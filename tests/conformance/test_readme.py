"""The commands and programs of the README work as pasted, but for the address; so do requests by curl in all pages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelyard.config import validate_config
from modelyard.system.announcements import announcements
from support.server import RunningServer, serving

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
WAIT_S = 120.0

# The shell that a page is pasted into; but failures count, and no stream goes on for ever.
CURL = """
set -e
curl() {
    case "$1" in
        -N) command curl -sS --fail-with-body -m 2 "$@" || [ $? = 28 ] ;;
        *) command curl -sS --fail-with-body -m 60 "$@" ;;
    esac
    echo
}
"""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


def at(text: str, url: str) -> str:
    return re.sub(r"http://(?:localhost|127\.0\.0\.1):1234", url, text)


def test_the_python_example_prints_an_answer(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = blocks(README, "python")
    program = at(program, server.url).replace('"gemma3"', '"smollm2"')
    names: dict[str, object] = {}
    exec(compile(program, "README.md", "exec"), names)
    names["client"].close()
    assert capsys.readouterr().out.strip()


@pytest.fixture(scope="module")
def demo(drawn_weights: dict[str, Path]) -> Iterator[RunningServer]:
    """A server with the ids of the demo configuration, which ``make serve`` serves, and which can be reloaded."""
    models = [
        {"model_id": str(path), "alias": name, "device": {"max_seq_len": 1024}} for name, path in drawn_weights.items()
    ]
    config = validate_config({"default_model_id": "smollm2", "models": models}, source="test")
    with serving(config, read_config=lambda: config) as running:
        yield running


CURLS = [
    (page.name, block)
    for page in (README, *sorted((ROOT / "docs").glob("*.md")))
    for block in blocks(page, "sh")
    # Images and sound are tested where there are models that take them, downloads with a hub, and adapters with files.
    if page.name not in ("adding-models.md", "adapters.md")
    and block.startswith("curl")
    and not re.search(r"example\.com|@\w+\.wav", block)
]


@pytest.mark.parametrize(("page", "block"), CURLS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(CURLS)])
def test_requests_by_curl_are_answered(page: str, block: str, demo: RunningServer) -> None:
    done = subprocess.run(
        ["bash", "-c", CURL + at(block, demo.url)], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 0, (page, done.stdout, done.stderr)
    assert '"error"' not in done.stdout


def test_the_pages_have_requests_by_curl() -> None:
    assert {page for page, _ in CURLS} >= {"README.md", "getting-started.md"}


@pytest.fixture(scope="module")
def checkout(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``make install`` leaves: the command in .venv, and the demo models in .weights."""
    folder = tmp_path_factory.mktemp("checkout")
    command = folder / ".venv" / "bin" / "modelyard"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m modelyard "$@"\n')
    command.chmod(0o755)
    (folder / ".weights").mkdir()
    for path in weights.values():
        (folder / ".weights" / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of a user who has no other models, and no other server."""
    home = tmp_path_factory.mktemp("home")
    homes = {"HOME": home, "XDG_RUNTIME_DIR": home, "XDG_STATE_HOME": home / "state", "XDG_CACHE_HOME": home / "cache"}
    kept = {name: value for name, value in os.environ.items() if name not in ("HF_HOME", "HF_HUB_CACHE", "COLUMNS")}
    return {**kept, **{name: str(path) for name, path in homes.items()}}


@contextmanager
def started(line: str, folder: Path, environ: Mapping[str, str]) -> Iterator[None]:
    """Run the line of a server, on a free port, until the context is left."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line} --port 0"], cwd=folder, env=environ, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + WAIT_S
        while not any(each.is_serving for each in announcements(environ)):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield
        process.terminate()
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()


def test_the_commands_for_your_own_models_work_in_their_order(checkout: Path, user: Mapping[str, str]) -> None:
    def said(line: str, typed: str = "") -> str:
        done = subprocess.run(
            ["bash", "-c", line], cwd=checkout, env=user, input=typed, capture_output=True, text=True, timeout=WAIT_S
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    (block,) = (block for block in blocks(README, "sh") if "modelyard" in block)
    # A line that is added to the block is to be run here, too.
    serve, run, ps, init, check, tools = (line.partition(" #")[0].rstrip() for line in block.splitlines())
    ids = ["gemma-3-270m-q4_k_m", "smollm2-135m-instruct-q4_1"]
    # Answers are sampled, and a model this small may not end one before its context is full.
    short = "--max-tokens 20"
    with started(serve, checkout, user):
        assert said(f"{run} {short}", "Say hello.").strip()
        assert all(each in said(ps) for each in ids)
    said(init)
    assert "2 models" in said(check)
    clock = {"command": sys.executable, "args": ["-m", "mcp_server_time"]}
    (checkout / "mcp.json").write_text(json.dumps({"mcpServers": {"clock": clock}}))
    assert said(f"{tools} {short}", "Say hello.").strip()
