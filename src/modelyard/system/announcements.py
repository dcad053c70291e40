"""Files by which servers on this machine tell their user's programs their addresses. They hold no secrets.

A server writes one file when it starts, and removes it when it stops. The file of a server that was killed is known by
its process, which has ended, or whose id belongs to a later process by now.

Source of the folders: XDG Base Directory Specification, XDG_RUNTIME_DIR and XDG_STATE_HOME.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from modelyard.system.private_files import FILE_MODE, is_ours, make_private_folder, open_private, write_private
from modelyard.system.process_use import process_use

logger = logging.getLogger(__name__)

_OWN: Final = "modelyard"
_SERVERS: Final = "servers"
_SUFFIX: Final = ".json"
# An announcement is a few hundred bytes; a file that is longer is not one.
_MAX_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """The announcement of a server.

    Attributes:
        url: its address, without a path, such as "http://127.0.0.1:1234".
        pid: id of the process that signals go to: its supervisor, or itself if it has none.
        start: when that process started, in ticks of the kernel; None where the system does not tell.
        machine: name of the machine, and of its space of process ids, which containers have their own of.
        version: of Modelyard.
        began: when it was started, in seconds of the epoch.
        is_serving: whether its address answers; before, it loads its models.
        config: path of its configuration file; None: it has none.
        certificate: path of the PEM file of its certificate; None: it speaks plain HTTP.
    """

    url: str
    pid: int
    start: int | None
    machine: str
    version: str
    began: float
    is_serving: bool
    config: str | None = None
    certificate: str | None = None


def start_of(pid: int) -> int | None:
    """Return when a process started, in ticks of the kernel; None if it has ended, or the system does not tell."""
    use = process_use(pid, has_threads=False)
    return None if use is None else use.start


def this_machine() -> str:
    """Return the name of the machine and of the space of process ids that this process is in."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 (not a path)
    return f"{socket.gethostname()} {space}".strip()


@contextmanager
def announced(announcement: Announcement, environ: Mapping[str, str]) -> Iterator[Callable[[], None]]:
    """Keep the file of ``announcement`` while the context is entered.

    Where no folder can be written to, there is no file, and the server has to be named to be found.

    Yields:
        A function to call when the server serves.
    """
    path = _write(announcement, environ)

    def announce_serving() -> None:
        nonlocal path
        path = _write(replace(announcement, is_serving=True), environ)

    try:
        yield announce_serving
    finally:
        # A server that was started meanwhile under the same supervisor has written the file again.
        found = None if path is None else _read(path)
        if path is not None and found is not None and found.began == announcement.began:
            with suppress(OSError):
                path.unlink()


def announcements(environ: Mapping[str, str]) -> list[Announcement]:
    """Return the announcements of the user's servers that run on this machine, the newest first.

    Files of servers that have ended are removed.
    """
    machine, found = this_machine(), {}
    for folder in _folders(environ):
        for path in _files(folder):
            announcement = _read(path)
            if announcement is None or announcement.machine != machine:
                continue
            if is_running(announcement):
                found[announcement.pid] = announcement
            else:
                with suppress(OSError):
                    path.unlink()
    return sorted(found.values(), key=lambda each: each.began, reverse=True)


@contextmanager
def sole_stop(announcement: Announcement, environ: Mapping[str, str]) -> Iterator[bool]:
    """Enter with whether no other program of the user is within this context for the same server.

    Where no folder can be written to, or files cannot be locked, each is taken for the sole one.
    """
    path = next((folder / f"{announcement.pid}.stop" for folder in _folders(environ) if is_ours(folder)), None)
    descriptor = None
    if path is not None and sys.platform != "win32":
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
    if path is None or descriptor is None:
        yield True
        return
    try:
        is_sole = _locked(descriptor)
        try:
            yield is_sole
        finally:
            if is_sole:
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Lock a file; return False if another program holds the lock."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # The file system has no locks.
        return True
    return True


def _folders(environ: Mapping[str, str]) -> list[Path]:
    """Return the folders that may hold announcements, in the order in which a server tries to write to them.

    A session without XDG_RUNTIME_DIR, such as that of cron or sudo, still finds servers of one that has it.
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if not runtime and sys.platform != "win32":
        # Where systemd puts it.
        runtime = f"/run/user/{os.geteuid()}"
    roots = [Path(runtime)] if Path(runtime).is_absolute() and is_ours(Path(runtime)) else []
    state = Path(environ.get("XDG_STATE_HOME", ""))
    if state.is_absolute():
        roots.append(state)
    else:
        # RuntimeError: the user has no home folder.
        with suppress(RuntimeError):
            roots.append(Path.home() / ".local" / "state")
    return list(dict.fromkeys(root / _OWN / _SERVERS for root in roots))


def _write(announcement: Announcement, environ: Mapping[str, str]) -> Path | None:
    for folder in _folders(environ):
        path = folder / f"{announcement.pid}{_SUFFIX}"
        try:
            make_private_folder(folder, folder.parent)
            write_private(path, json.dumps(asdict(announcement)).encode())
        except OSError as error:
            logger.debug("The server is not announced in %s: %s", folder, error.strerror or error)
        else:
            return path
    return None


def _files(folder: Path) -> list[Path]:
    """Return the files in a folder of the user's own; none if other users could have put them there."""
    if not is_ours(folder) or not is_ours(folder.parent):
        return []
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.suffix == _SUFFIX)
    return []


def _read(path: Path) -> Announcement | None:
    """Return what a file announces; None if it cannot be read, is a link, or is no announcement."""
    try:
        with open_private(path) as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            return None
        fields = json.loads(text)
        return _checked(fields) if isinstance(fields, dict) else None
    except (OSError, ValueError, RecursionError):
        return None


def _checked(fields: dict[str, Any]) -> Announcement | None:
    """Return the announcement of ``fields``; None if they are not one. Fields of later versions are left out."""

    def has(name: str, *kinds: type) -> bool:
        return isinstance(fields.get(name), kinds) and not isinstance(fields.get(name), bool)

    nothing = type(None)
    is_whole = (
        all(has(name, str) for name in ("url", "machine", "version"))
        and has("pid", int)
        and fields["pid"] > 0
        and has("start", int, nothing)
        and has("began", int, float)
        and isinstance(fields.get("is_serving"), bool)
        and all(has(name, str, nothing) for name in ("config", "certificate"))
    )
    if not is_whole or not fields["url"].startswith(("http://", "https://")):
        return None
    known: dict[str, Any] = {name: fields.get(name) for name in Announcement.__slots__}
    return Announcement(**known)


def is_running(announcement: Announcement) -> bool:
    """Whether the server that announced itself runs, or its supervisor, which is about to start it again."""
    start = start_of(announcement.pid)
    if announcement.start is not None:
        return start == announcement.start
    if sys.platform == "win32":
        # os.kill would end the process there.
        return True
    try:
        os.kill(announcement.pid, 0)
    except (OSError, OverflowError):
        # OverflowError: no process has such an id.
        return False
    return True
