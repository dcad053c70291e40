"""The hang-up of a terminal, and other signals of the same number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).resolve().parents[3] / "src"

# Of a session of its own, whose terminal its standard input is.
PROGRAM = f"""
import asyncio, fcntl, os, signal, sys, termios, time
sys.path.insert(0, {str(SRC)!r})
from modelyard.system import hang_up
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, lambda *_: None)

async def watch():
    with hang_up.watched_terminal(asyncio.get_running_loop()) as terminal:
        os.write(1, b"-" if terminal.is_hang_up() else b"a")
        while terminal.descriptor is not None:
            await asyncio.sleep(0.01)
        os.write(1, b"h" if terminal.is_hang_up() else b"-")
        later = time.monotonic() + 60
        hang_up.time.monotonic = lambda: later
        os.write(1, b"-" if terminal.is_hang_up() else b"l")

asyncio.run(asyncio.wait_for(watch(), 30))
"""


def test_a_signal_is_the_hang_up_only_soon_after_the_terminal_is_gone() -> None:
    window, terminal = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-S", "-c", PROGRAM], stdin=terminal, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"a"
        # What is typed is not reported.
        os.write(window, b"x\n")
        os.close(window)
        os.close(terminal)
        assert process.stdout.read() == b"hl"
    assert process.returncode == 0


def test_without_a_terminal_no_signal_is_a_hang_up() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(SRC)!r}); from modelyard.system.hang_up import ControllingTerminal as T; "
        "t = T(); t.look(); sys.exit(t.is_hang_up() or t.descriptor is not None)"
    )
    assert subprocess.run([sys.executable, "-S", "-c", program], start_new_session=True, check=False).returncode == 0
