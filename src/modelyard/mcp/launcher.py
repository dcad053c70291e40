"""The program between Modelyard and an MCP server that speaks on standard input and output.

It starts the server, and ends it with everything that it started once Modelyard closes the lifeline, or is gone,
however it ended: the kernel closes the write end of the pipe with its last holder. It is given to another interpreter
as a file, so it imports the standard library alone, and nothing of Modelyard.

    python -I -S launcher.py LIFELINE COMMAND [ARGUMENT…]

LIFELINE is the file descriptor of the pipe's read end. Standard input, output and error are those of the server.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable

# Seconds in which a server ends by itself once its input has ended, and then after SIGTERM. Source: the specification
# of MCP, "Lifecycle", shutdown of the stdio transport.
EXIT_S = 2.0
TERMINATE_S = 2.0
KILL_S = 2.0

POLL_S = 0.02

CANNOT_START = 127
"""Exit status where the server's program cannot be started, as in a shell."""

SIGNALLED = 128
"""Exit status, without the signal's number, where a signal has ended the server's program, as in a shell."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# Source: Linux, include/uapi/linux/prctl.h.


def main(arguments: list[str]) -> int:
    """Run a server until it ends, or the lifeline does; return its exit status, as a shell gives it."""
    lifeline, command = int(arguments[0]), arguments[1:]
    # Processes that the server leaves behind become children of this one, so that they are found at the end.
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    wakeup, woken = os.pipe()
    for end in (wakeup, woken):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    # A handler, and not SIG_IGN, because a program that is started would inherit that.
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _note)
    own = os.getpid()
    server = os.fork()
    if server == 0:
        _become(command, own)
    with contextlib.suppress(OSError):  # it has done so itself, or has ended
        os.setpgid(server, server)
    _close_streams()
    status = _wait(server, lifeline, wakeup)
    _end_group(server)
    _end_descendants(own)
    return status


def _become(command: list[str], parent: int) -> None:
    """Become the server, in the fork."""
    try:
        os.setpgid(0, 0)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]} cannot be started: {error.strerror}\n".encode("utf-8", "surrogateescape"))
    finally:
        os._exit(CANNOT_START)


def _note(_number: int, _frame: object) -> None:
    """Do nothing: the wakeup descriptor has woken the wait."""


def _close_streams() -> None:
    """Let go of the server's streams, so that it alone holds them, and its end is the end of its output."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


def _wait(server: int, lifeline: int, wakeup: int) -> int:
    """Wait until the server has ended, and end it once the lifeline has; return its exit status."""
    signals: list[tuple[float, Callable[[], object]]] = []
    while True:
        ended, status = os.waitpid(server, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return SIGNALLED - code if code < 0 else code
        timeout = max(0.0, signals[0][0] - time.monotonic()) if signals else None
        waited = [wakeup] if signals else [wakeup, lifeline]
        ready, _, _ = select.select(waited, [], [], timeout)
        if wakeup in ready:
            with contextlib.suppress(BlockingIOError):
                if any(number != signal.SIGCHLD for number in os.read(wakeup, 4096)) and not signals:
                    signals = _endings(server, 0.0)
        if lifeline in ready and not signals:
            signals = _endings(server, EXIT_S)
        while signals and time.monotonic() >= signals[0][0]:
            signals.pop(0)[1]()
            if not signals:
                # After SIGKILL only the kernel decides when it ends.
                signals.append((time.monotonic() + KILL_S, lambda: os._exit(1)))


def _endings(server: int, patience_s: float) -> list[tuple[float, Callable[[], object]]]:
    """Return when the group of the server gets which signal."""
    now = time.monotonic()
    return [
        (now + patience_s, lambda: _signal_group(server, signal.SIGTERM)),
        (now + patience_s + TERMINATE_S, lambda: _signal_group(server, signal.SIGKILL)),
    ]


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to the process group; return whether there is one."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # on macOS, of a group of zombies
        return False
    return True


def _end_group(server: int) -> None:
    """End what is left of the server's process group."""
    if not _signal_group(server, signal.SIGTERM):
        return
    deadline = time.monotonic() + TERMINATE_S
    while time.monotonic() < deadline:
        _reap()
        if not _signal_group(server, 0):
            return
        time.sleep(POLL_S)
    _signal_group(server, signal.SIGKILL)


def _end_descendants(own: int) -> None:
    """Kill the processes that left the group: this one inherits them as their parents end."""
    deadline = time.monotonic() + KILL_S
    while time.monotonic() < deadline and _reap():
        for child in _children(own):
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        time.sleep(POLL_S)


def _reap() -> bool:
    """Collect the exit statuses of all that has ended; return whether there are children left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _children(parent: int) -> list[int]:
    """Return the children of a process. Source: Linux, proc(5), /proc/pid/stat."""
    children = []
    try:
        entries = os.listdir("/proc")  # noqa: PTH208 (another import would double the time of the start)
    except OSError:
        return []
    for name in entries:
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
            # Behind the name of the program, which may hold blanks and brackets.
            if int(file.read().rpartition(b")")[2].split()[1]) == parent:
                children.append(int(name))
    return children


def _prctl(option: int, value: int) -> None:
    """Set an attribute of this process, where there is such a call."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
