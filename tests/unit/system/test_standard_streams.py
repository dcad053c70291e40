"""Programs without standard streams, or without readers: each a small interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.system.standard_streams import CUT_STATUS

SRC = Path(__file__).resolve().parents[3] / "src"
WAIT_S = 60


def run(program: str, redirections: str) -> subprocess.CompletedProcess[str]:
    """Run a program with what a shell does to its streams."""
    return subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {redirections}', sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


OPENS_A_SOCKET = """
import os, socket, sys
from modelyard.system.standard_streams import open_missing
open_missing()
print("nobody reads this", flush=True)
print("nor this", file=sys.stderr, flush=True)
sys.stdin.read()
with socket.socket() as opened:
    assert opened.fileno() > 2, opened.fileno()
assert all(os.get_inheritable(number) for number in (0, 1, 2))
sys.exit(7)
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_no_socket_takes_the_place_of_a_closed_stream(closed: str) -> None:
    assert run(OPENS_A_SOCKET, f"{closed} {'' if '<' in closed else '</dev/null'}").returncode == 7


WRITES_ON = """
import logging, os, sys
from modelyard.system import standard_streams
standard_streams.watch()
{lasting}
# Whoever reads is gone.
os.read(0, 1)
try:
    for number in range(3):
        print("line", number, flush=True)
        print("line", number, file=sys.stderr, flush=True)
    logging.basicConfig(level=logging.INFO)
    logging.info("and a log")
finally:
    if standard_streams.was_cut():
        sys.exit(standard_streams.CUT_STATUS)
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(("lasting", "status"), [("standard_streams.outlive_readers()", 0), ("pass", CUT_STATUS)])
@pytest.mark.parametrize("cut", [1, 2])
def test_a_server_outlives_its_readers_and_a_command_ends_quietly(
    cut: int, lasting: str, status: int, unbuffered: str
) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", WRITES_ON.format(lasting=lasting)],
        env={**os.environ, "PYTHONPATH": str(SRC), "PYTHONUNBUFFERED": unbuffered},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    assert program.stderr is not None
    lost, kept = (program.stdout, program.stderr) if cut == 1 else (program.stderr, program.stdout)
    lost.close()
    program.stdin.write(b"x")
    program.stdin.close()
    said = kept.read()
    kept.close()
    assert program.wait(WAIT_S) == status
    assert (b"line 2" in said) is (status == 0)
    if cut == 1 and status:
        # Only what a program of Python's says of an error that nobody caught; the command line catches it.
        assert said.count(b"BrokenPipeError") <= 1


def test_streams_that_are_read_are_as_they_were() -> None:
    program = """
import sys
from modelyard.system import standard_streams
before = [(s.encoding, s.errors, s.line_buffering, s.isatty(), s.fileno()) for s in (sys.stdout, sys.stderr)]
standard_streams.watch()
after = [(s.encoding, s.errors, s.line_buffering, s.isatty(), s.fileno()) for s in (sys.stdout, sys.stderr)]
assert before == after
print("é", end="")
print("è", end="", file=sys.stderr)
assert not standard_streams.was_cut()
"""
    ended = run(program, "")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "é", "è")
