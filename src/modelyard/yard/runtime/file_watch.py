"""Detects that a file was written over while an engine has it mapped.

Weights are mapped: where a file is truncated, the next step that needs the missing part ends its process (SIGBUS), and
where it is written over, answers are nonsense. So the files are checked every second. A check takes 2 us, but may hang
on a network file system, so there is a thread for each device. Each file is held open and checked by its descriptor,
because its path may lead to another file by then, while the mapped one stays whole.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from modelyard.protocol.events import HeldWeights
from modelyard.system.file_stamp import FileStamp, change

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S: Final = 1.0
"""Seconds between two checks: what an engine computes in between may be nonsense, and is published."""


class FileWatch:
    """Checks the mapped files of the engines of one yard. Thread-safe."""

    def __init__(self, interval_s: float = CHECK_INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._watched: dict[int, list[WatchedFiles]] = {}
        self._change = threading.Condition()
        self._is_closed = False

    def add(self, stamps: Sequence[FileStamp], on_change: Callable[[str], None]) -> WatchedFiles:
        """Watch files until the caller ends it. Opens them, so it must not be called on an event loop.

        Args:
            stamps: the files as they were when their headers were read.
            on_change: called once, on another thread, with the name of the first file that was written over.
        """
        watched = WatchedFiles(stamps, on_change)
        with self._change:
            for device in watched.devices:
                others = self._watched.get(device)
                if others is None:
                    self._watched[device] = [watched]
                    threading.Thread(target=self._run, args=(device,), name="files of models", daemon=True).start()
                else:
                    others.append(watched)
        return watched

    def close(self) -> None:
        """End all threads soon; those that hang in a check end with the process."""
        with self._change:
            self._is_closed = True
            self._change.notify_all()

    def _run(self, device: int) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._is_closed, self._interval_s)
                ended = [watched for watched in self._watched[device] if watched.is_over or self._is_closed]
                remaining = [watched for watched in self._watched[device] if watched not in ended]
                self._watched[device] = remaining
                if not remaining:
                    del self._watched[device]
            for watched in ended:
                watched.close(device)
            if not remaining:
                return
            for watched in remaining:
                watched.check(device)


class WatchedFiles:
    """The watched files of one engine.

    Attributes:
        devices: numbers of the devices that they lie on.
        is_over: whether the watch has ended, and no change is reported any more.
    """

    def __init__(self, stamps: Sequence[FileStamp], on_change: Callable[[str], None]) -> None:
        self.is_over = False
        self._on_change = on_change
        self._reporting = threading.Lock()
        self._files: dict[int, list[_OpenFile]] = {}
        # Windows does not allow writing to a file that is mapped, nor renaming one that is open.
        for stamp in () if sys.platform == "win32" else stamps:
            self._files.setdefault(stamp.device, []).append(_OpenFile(stamp))
        self.devices = tuple(self._files)

    def end(self) -> None:
        """End the watch. Returns at once; the thread of each device closes the files."""
        self.is_over = True

    def check(self, device: int | None = None) -> str | None:
        """Check the files on one device, or all; return the name of one that was written over, None where none was."""
        devices: Iterable[int] = self.devices if device is None else (device,)
        for each in devices:
            for file in self._files[each]:
                if file.was_written_over():
                    self._report(file.stamp.path.name)
                    return file.stamp.path.name
        return None

    def close(self, device: int) -> None:
        """Close the files on one device. Only the thread that checks them may call it."""
        for file in self._files[device]:
            file.close()

    def _report(self, name: str) -> None:
        with self._reporting:
            is_first, self.is_over = not self.is_over, True
        if is_first:
            self._on_change(name)


class WatchedWeights:
    """Parked weights, whose files are watched until the weights are released."""

    def __init__(self, weights: HeldWeights, files: WatchedFiles) -> None:
        self._weights, self._watched = weights, files

    def release(self) -> None:
        """Release the weights, and end the watch. To be called once."""
        self._watched.end()
        self._weights.release()


class _OpenFile:
    """A file that is checked through a descriptor, or by its path where it cannot be opened."""

    def __init__(self, stamp: FileStamp) -> None:
        self.stamp = stamp
        self._descriptor: int | None = None
        # A check and the close may come from two threads.
        self._lock = threading.Lock()
        self._is_replaced = False
        try:
            descriptor = os.open(stamp.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            logger.warning("%s is watched by its name alone: it cannot be opened (%s)", stamp.path, error.strerror)
            return
        found = FileStamp.of(stamp.path, os.fstat(descriptor))
        if found.contents == stamp.contents:
            # The inode may differ although the contents are those of the stamp.
            self.stamp = found
        elif change(stamp, found) == "replaced":
            # The engine opens the other file, too, and refuses it.
            os.close(descriptor)
            self._is_replaced = True
            return
        self._descriptor = descriptor

    def was_written_over(self) -> bool:
        with self._lock:
            if self._is_replaced:
                return False
            try:
                status = self.stamp.path.stat() if self._descriptor is None else os.fstat(self._descriptor)
            except OSError:
                # A network file system has lost a file that is open, and its pages with it.
                return self._descriptor is not None
            return change(self.stamp, FileStamp.of(self.stamp.path, status)) == "written over"

    def close(self) -> None:
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
            self._is_replaced = True
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)
