"""The stop of a server: what it waits for, how to end it at once, and with which exit code it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from modelyard.system.quantities import count_text
from modelyard.system.supervised import SupervisorLink
from modelyard.yard.runtime.inflight import RunningAnswer

# Answers that the log names one by one.
_MAX_NAMED: Final = 3


class Stop:
    """The state of stopping: the first SIGINT or SIGTERM requests it, and the second ends running requests at once.

    Attributes:
        requested, forced: set by the first and by the second signal.
        has_cut: whether the second one has cut something off, and not come when nothing was left to wait for.
    """

    def __init__(self, link: SupervisorLink | None) -> None:
        self.requested = asyncio.Event()
        self.forced = asyncio.Event()
        self.has_cut = False
        self._link = link

    def on_signal(self) -> None:
        """Request stopping, or force it if it is requested already."""
        if self.requested.is_set():
            self.forced.set()
        else:
            self.request()

    def request(self) -> None:
        """Request stopping, which lets running requests end."""
        if self._link is not None and not self.requested.is_set():
            self._link.report_stopping()
        self.requested.set()


def stop_line(answers: Sequence[RunningAnswer], requests: int, wait_s: float, *, is_terminal: bool) -> str:
    """Return what a stop waits for, and how to end it now.

    Args:
        answers: the answers that are being computed, or wait for their models.
        requests: all requests that are being answered.
        wait_s: how long they may take.
        is_terminal: whether somebody watches who can press Ctrl-C.
    """
    if not answers and not requests:
        return "Stopping"
    again = "Ctrl-C again ends" if is_terminal else "a second SIGINT or SIGTERM ends"
    if answers:
        named = "; ".join(map(_named, answers[:_MAX_NAMED]))
        more = f" and {len(answers) - _MAX_NAMED} more" if len(answers) > _MAX_NAMED else ""
        verb = "is" if len(answers) == 1 else "are"
        what = f"{count_text(len(answers), 'answer')} {verb} running ({named}{more})"
        those = "it" if len(answers) == 1 else "them"
    else:
        verb = "is" if requests == 1 else "are"
        what = f"{count_text(requests, 'request')} {verb} being answered"
        those = "it" if requests == 1 else "them"
    return f"Stopping, new connections are refused. {what}: waiting up to {wait_s:.0f} s; {again} {those}"


def _named(answer: RunningAnswer) -> str:
    if answer.is_waiting:
        return f"model {answer.model}, waiting"
    return f"model {answer.model}, {count_text(answer.tokens, 'token')} so far"


def forced_line(answers: Sequence[RunningAnswer], requests: int) -> str:
    """Return the line about what is ended because it took too long, or is not to be waited for; "" where nothing is."""
    if answers:
        return f"Ending {count_text(len(answers), 'answer')}"
    return f"Ending {count_text(requests, 'request')}" if requests else ""
