"""The targets of the Makefile, and commands in the foreground."""

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

from unit.conftest import SLOW

ROOT = Path(__file__).resolve().parents[2]

# The tests themselves may run under make, whose settings its children inherit.
OUTSIDE_MAKE = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


def test_make_alone_lists_every_target_with_a_line_about_it():
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    targets = rules - {"compile-again"}  # other rules depend on it; nobody runs it
    listed = subprocess.run(["make"], cwd=ROOT, env=OUTSIDE_MAKE, capture_output=True, text=True, check=True)
    lines = {line.split()[1]: line.split()[2:] for line in listed.stdout.splitlines()}
    expected = {
        "help",
        "install",
        "convert",
        "serve",
        "test",
        "quick",
        "check",
        "fix",
        "docs",
        "site",
        "simulate",
        "bench",
    }
    expected |= {
        "architectures",
        "conformance",
        "faults",
        "fuzz",
        "attack",
        "lock",
        "audit",
        "ui",
        "ui-shots",
        "browser",
        "package",
        "release",
    }
    assert lines.keys() == targets == expected
    assert all(lines.values())


def test_the_tests_that_make_quick_leaves_out_are_there():
    for slow in SLOW:
        file, _, name = slow.partition("::")
        assert name in (ROOT / "tests" / "unit" / file).read_text()


def test_ctrl_c_ends_a_foreground_command_cleanly_and_make_with_it(tmp_path):
    stopper = tmp_path / "stopper.py"
    stopper.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(print('stopped cleanly')))\n"
        "print('ready', flush=True)\n"
        "time.sleep(30)\n"
    )
    makefile = tmp_path / "Makefile"
    makefile.write_text(f"serve:\n\t@{sys.executable} {ROOT}/scripts/foreground.py {sys.executable} {stopper}\n")
    terminal, end = pty.openpty()
    make = subprocess.Popen(  # login_tty gives it the terminal, as a shell would
        [sys.executable, "-c", f"import os; os.login_tty({end}); os.execvp('make', ['make', '-f', '{makefile}'])"],
        pass_fds=[end],
        env=OUTSIDE_MAKE,
    )
    os.close(end)
    said = b""
    try:
        while b"ready" not in said:
            said += os.read(terminal, 4096)
        os.write(terminal, b"\x03")
        assert make.wait(timeout=20) == 0
        while block := _read(terminal):
            said += block
    finally:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)
            make.wait()
        os.close(terminal)
    assert b"stopped cleanly" in said
    assert b"make" not in said


def _read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # all who held the other end are gone
        return b""
