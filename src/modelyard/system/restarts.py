"""Decides what follows when a supervised server has ended: it is started again, or the supervisor ends too.

Pure: time and exit statuses enter as values. A status is that of ``os.waitstatus_to_exitcode``: a signal is a negative
number.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import Final

MAX_DEATHS: Final = 5
WINDOW_S: Final = 60.0
# The first death is answered at once. Clients wait in the listen backlog meanwhile, so others are not to wait long.
RETRY_DELAY_S: Final = 0.5
FAILED: Final = 1

# Whoever sends these wants the process to end. Nothing sends them because of a fault.
_ASKED: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})


@dataclass(frozen=True, slots=True)
class Service:
    """What is known about a server over all its processes.

    Attributes:
        has_served: one of its processes has accepted connections.
        serves: the present process does.
        is_stop_asked: somebody wants it to end.
        deaths_s: when it crashed within the last minute, on a monotonic clock.
        failed_starts: how many of its processes, one after the other, crashed before they accepted connections.
    """

    has_served: bool = False
    serves: bool = False
    is_stop_asked: bool = False
    deaths_s: tuple[float, ...] = ()
    failed_starts: int = 0


@dataclass(frozen=True, slots=True)
class StartAgain:
    """The server is started again, ``delay_s`` from now. ``message`` is for the log."""

    delay_s: float
    message: str


@dataclass(frozen=True, slots=True)
class End:
    """The supervisor ends with ``status``; with a negative one it dies of that signal.

    Attributes:
        message: the reason, where the server itself has not printed one.
    """

    status: int
    message: str | None = None


def mark_serving(service: Service) -> Service:
    """The service whose present process has begun to accept connections."""
    return replace(service, has_served=True, serves=True, failed_starts=0)


def after_end(service: Service, status: int, now_s: float) -> tuple[Service, StartAgain | End]:
    """What follows when the present process has ended with ``status``.

    A crash is a signal that nobody sends on purpose, or a status other than 0 once the service has served. Before that
    the server has reported an error of its own, such as a wrong configuration, which another start would only repeat.
    """
    if service.is_stop_asked:
        return service, End(status, None if _is_meant(status) else f"The server {_how(status)} while it was stopping.")
    if _is_meant(status) or (status > 0 and not service.has_served):
        return service, End(status)
    deaths = (*(at for at in service.deaths_s if now_s - at < WINDOW_S), now_s)
    failed_starts = 0 if service.serves else service.failed_starts + 1
    service = replace(service, serves=False, deaths_s=deaths, failed_starts=failed_starts)
    if len(deaths) >= MAX_DEATHS:
        return service, End(FAILED, _giving_up(f"died {len(deaths)} times within a minute", status))
    if failed_starts >= MAX_DEATHS:
        return service, End(FAILED, _giving_up(f"died {failed_starts} times before it could serve", status))
    delay_s = RETRY_DELAY_S if len(deaths) > 1 else 0.0
    return service, StartAgain(delay_s, f"The server {_how(status)}; starting it again")


def _is_meant(status: int) -> bool:
    return status == 0 or -status in _ASKED


def _how(status: int) -> str:
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
    return f"The server {what}; the last time it {_how(status)}. It is not started again. {advice}"
