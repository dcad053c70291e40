"""``modelyard quantize`` as a user runs it: on a terminal, to the end or interrupted."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelyard.formats.gguf.read import read_header
from modelyard.hub import ConvertedModels, ModelFiles
from support.converting import WAIT_S, Ending, children

# A busy machine may take long over a conversion, which leaves the cores to others.
pytestmark = pytest.mark.timeout(600)

COMMAND = [sys.executable, "-m", "modelyard", "quantize"]


@dataclass
class OnTerminal:
    """A command with a terminal of its own."""

    process: subprocess.Popen[bytes]
    terminal: int
    said: str = ""

    def read_until(self, words: str) -> None:
        while words not in self.said:
            block = self._read()
            assert block, self.said
            self.said += block

    def end(self) -> int:
        """Read to the end; the exit status."""
        while block := self._read():
            self.said += block
        return self.process.wait(WAIT_S)

    def _read(self) -> str:
        try:
            return os.read(self.terminal, 4096).decode("utf-8", "replace")
        except OSError:  # all who held the other end are gone
            return ""


@contextlib.contextmanager
def on_terminal(*arguments: str | Path, **settings: str) -> Iterator[OnTerminal]:
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=end,
        stdout=end,
        stderr=end,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **settings},
    )
    os.close(end)
    try:
        yield OnTerminal(process, terminal)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def quantize(*arguments: str | Path, cache: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def test_it_shows_its_progress_and_writes_the_file(
    checkpoint: Path, made: Callable[..., ModelFiles], cache: Path, tmp_path: Path
):
    made()
    out = tmp_path / "new" / "smol-q8.gguf"
    with on_terminal("-m", checkpoint, "--isq", "8", "-o", out, XDG_CACHE_HOME=str(cache)) as command:
        assert command.end() == 0, command.said
    assert "Q8_0" in command.said
    assert read_header(out).quantization == "Q8_0"
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("number", "step", "status"),
    [
        (signal.SIGINT, "Reading the checkpoint", 128 + signal.SIGINT),
        (signal.SIGTERM, "Reading the checkpoint", 128 + signal.SIGTERM),
        (signal.SIGINT, "Quantising", 128 + signal.SIGINT),
        (signal.SIGTERM, "Quantising", 128 + signal.SIGTERM),
        (signal.SIGKILL, "Quantising", -signal.SIGKILL),
    ],
)
def test_it_can_be_interrupted_without_harm(
    checkpoint: Path,
    made: Callable[..., ModelFiles],
    cache: Path,
    tmp_path: Path,
    number: signal.Signals,
    step: str,
    status: int,
):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    if step == "Quantising":
        # In full precision it is there already.
        made()
    else:
        cache = tmp_path / "cache"
    converted = ConvertedModels(cache / "modelyard" / "converted")
    before = converted.list()
    arguments = ("-m", checkpoint, "--isq", "q3k", "-o", tmp_path / "out.gguf")
    with on_terminal(*arguments, XDG_CACHE_HOME=str(cache), TMPDIR=str(temporary)) as command:
        command.read_until(step)
        converters = Ending(children(command.process.pid))
        command.process.send_signal(number)
        assert command.end() == status
        assert converters.wait()
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "out.gguf").exists()
    assert converted.list() == before
    # What a killed process left goes with the next conversion of anything.
    with converted.locked("another", lambda _: True):
        pass
    kept = {entry.key for entry in before} | {".locks"}
    assert {path.name for path in converted.folder.iterdir()} == kept


def test_a_place_that_cannot_be_written_is_named(made: Callable[..., ModelFiles], cache: Path, checkpoint: Path):
    made(isq="8")
    done = quantize("-m", checkpoint, "--isq", "8", "-o", "/proc/nowhere/x.gguf", cache=cache)
    assert done.returncode == 4
    assert "/proc/nowhere/x.gguf cannot be written: " in done.stderr
    assert "Choose another place with --out." in done.stderr


def test_the_model_itself_is_not_overwritten(weights: dict[str, Path], tmp_path: Path):
    model = tmp_path / "model.gguf"
    model.symlink_to(weights["smollm2"])
    done = quantize("-m", model, "--isq", "8", "-o", model, cache=tmp_path)
    assert done.returncode == 2
    assert f"{model} is the model itself, and would be lost." in done.stderr


def test_a_full_disk_leaves_no_half_file(
    made: Callable[..., ModelFiles], cache: Path, checkpoint: Path, tmp_path: Path
):
    made(isq="8")
    out = tmp_path / "x.gguf"
    limited = f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({2**20}, {2**20})); "
    limited += "sys.argv = sys.argv[1:]; runpy.run_module('modelyard', run_name='__main__', alter_sys=True)"
    done = subprocess.run(
        [sys.executable, "-c", limited, "modelyard", "quantize", "-m", checkpoint, "--isq", "8", "-o", out],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert re.search(r"x\.gguf cannot be written: File too large", done.stderr), done.stderr
    assert list(tmp_path.iterdir()) == []
