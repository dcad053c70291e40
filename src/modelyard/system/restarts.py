"""Decides whether a supervised server that has ended is started again, or the supervisor ends, too.

Pure: time and exit statuses enter as values. A status is a value of ``os.waitstatus_to_exitcode``, in which a signal is
a negative number.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import Final

MAX_DEATHS: Final = 5
WINDOW_S: Final = 60.0
# The first restart is immediate. Later ones wait briefly, because clients wait in the listen backlog meanwhile.
RETRY_DELAY_S: Final = 0.5
FAILED: Final = 1

ENDED_AT_ONCE: Final = 130
"""Exit status of a server whose answers a second signal has ended; it is that of a program that Ctrl-C has ended."""

# Signals that are sent to end a process on purpose, never because of a fault.
_STOP_SIGNALS: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})


@dataclass(frozen=True, slots=True)
class Service:
    """The state of a server over all its processes.

    Attributes:
        has_served: whether one of its processes has accepted connections.
        serves: whether the present process accepts connections.
        is_stop_asked: whether the server was asked to stop.
        deaths_s: times of its crashes within the last minute, on a monotonic clock.
        failed_starts: how many processes in a row crashed before they accepted connections.
    """

    has_served: bool = False
    serves: bool = False
    is_stop_asked: bool = False
    deaths_s: tuple[float, ...] = ()
    failed_starts: int = 0


@dataclass(frozen=True, slots=True)
class StartAgain:
    """Start the server again after ``delay_s``, and log ``message``."""

    delay_s: float
    message: str


@dataclass(frozen=True, slots=True)
class End:
    """End the supervisor with ``status``; a negative one is the signal that it dies of.

    Attributes:
        message: the reason, if the server itself has not printed one.
    """

    status: int
    message: str | None = None


def mark_serving(service: Service) -> Service:
    """Return the service after its present process has begun to accept connections."""
    return replace(service, has_served=True, serves=True, failed_starts=0)


def after_end(service: Service, status: int, now_s: float) -> tuple[Service, StartAgain | End]:
    """Return the decision after the present process has ended with ``status``, and the new state.

    A crash is a signal other than those that stop a process, or a status other than 0 once the service has served.
    Before that, such a status is an error that the server has reported, for example a wrong configuration, and another
    start would only repeat it.
    """
    if service.is_stop_asked:
        is_intended = _is_intended(status) or status == ENDED_AT_ONCE
        message = None if is_intended else f"The server {_describe(status)} while it was stopping."
        return service, End(status, message)
    if _is_intended(status) or (status > 0 and not service.has_served):
        return service, End(status)
    deaths = (*(at for at in service.deaths_s if now_s - at < WINDOW_S), now_s)
    failed_starts = 0 if service.serves else service.failed_starts + 1
    service = replace(service, serves=False, deaths_s=deaths, failed_starts=failed_starts)
    if len(deaths) >= MAX_DEATHS:
        return service, End(FAILED, _giving_up(f"died {len(deaths)} times within a minute", status))
    if failed_starts >= MAX_DEATHS:
        return service, End(FAILED, _giving_up(f"died {failed_starts} times before it could serve", status))
    delay_s = RETRY_DELAY_S if len(deaths) > 1 else 0.0
    return service, StartAgain(delay_s, f"The server {_describe(status)}; starting it again")


def _is_intended(status: int) -> bool:
    return status == 0 or -status in _STOP_SIGNALS


def _describe(status: int) -> str:
    return f"died of {_signal_name(-status)}" if status < 0 else f"ended with exit status {status}"


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    meaning = signal.strsignal(number)
    return name if meaning is None else f"{name} ({meaning.lower()})"


def _giving_up(what: str, status: int) -> str:
    advice = (
        "Memory may have run out: the kernel's log says so. Set [memory] budget lower, or serve smaller models."
        if -status == signal.SIGKILL
        else "The log above says what it was doing. Leave out the model or the requests that end it, and have "
        "`modelyard doctor` check the machine."
    )
    return f"The server {what}; the last time it {_describe(status)}. It is not started again. {advice}"
