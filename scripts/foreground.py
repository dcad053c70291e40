"""Run a command as the terminal's foreground job, so that Ctrl-C reaches it and not the make that started it.

    python scripts/foreground.py COMMAND [ARGUMENT ...]

make, when it receives Ctrl-C itself, always ends with status 130, however cleanly its recipe stopped. Run through this,
the command alone gets the Ctrl-C, and its own status is what make sees. Without a terminal there is no Ctrl-C: the
command then simply takes this program's place.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def foreground_terminal() -> int | None:
    """The controlling terminal, if this process is in its foreground."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        return terminal if os.tcgetpgrp(terminal) == os.getpgrp() else None
    except OSError:
        return None


def hand_over(terminal: int, giver: int, taker: int) -> None:
    """Pass the terminal's foreground from one process group to another, if the first one has it."""
    with suppress(OSError):  # the terminal is gone, and Ctrl-C with it
        if os.tcgetpgrp(terminal) == giver:
            os.tcsetpgrp(terminal, taker)


def start(command: list[str], terminal: int) -> int:
    """Start the command as a process group that holds the terminal; its id."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # else to hand the terminal over from the background stops one
    child = os.fork()
    if child:
        with suppress(OSError):  # whoever is first, parent or child, makes the group
            os.setpgid(child, child)
        return child
    os.setpgid(0, 0)
    os.tcsetpgrp(terminal, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        os._exit(127)


def main(command: list[str]) -> int:
    """Run the command to its end; its exit status, as a shell counts it."""
    terminal = foreground_terminal()
    if terminal is None:
        os.execvp(command[0], command)
    own = os.getpgrp()
    child = start(command, terminal)

    def signal_child(signum: int, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(child, signum)

    def resume(*_: object) -> None:
        hand_over(terminal, own, child)
        signal_child(signal.SIGCONT)

    for signum in FORWARDED:
        signal.signal(signum, signal_child)
    signal.signal(signal.SIGCONT, resume)
    while True:
        _, status = os.waitpid(child, os.WUNTRACED)
        hand_over(terminal, child, own)
        if not os.WIFSTOPPED(status):
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        os.kill(0, signal.SIGTSTP)  # Ctrl-Z: make stops too, until the shell's fg or bg
        resume()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
