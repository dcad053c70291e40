"""Finds out that a file was written over while an engine has it mapped.

Weights are mapped: where a file is cut off, the next step that needs the missing part ends its process (SIGBUS), and
where it is written over, answers are nonsense. So the open files are looked at every second: a look takes 2 us, and may
hang where a network's file system does, so it happens on a thread for each device. Each file is held open: a path that
leads to another file by then says nothing of the one that is mapped, which stays whole.
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

LOOK_S: Final = 1.0
"""Between two looks: what an engine computes in between may be nonsense, and is published."""


class FileWatch:
    """Looks at the mapped files of the engines of one yard. Thread-safe."""

    def __init__(self, look_s: float = LOOK_S) -> None:
        self._look_s = look_s
        self._watched: dict[int, list[WatchedFiles]] = {}
        self._change = threading.Condition()
        self._is_closed = False

    def add(self, stamps: Sequence[FileStamp], on_change: Callable[[str], None]) -> WatchedFiles:
        """Watch files until the end that the caller makes. Opens them, so not for an event loop.

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
        """End all threads soon; those that hang in a look end with the process."""
        with self._change:
            self._is_closed = True
            self._change.notify_all()

    def _run(self, device: int) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._is_closed, self._look_s)
                over = [watched for watched in self._watched[device] if watched.is_over or self._is_closed]
                left = [watched for watched in self._watched[device] if watched not in over]
                self._watched[device] = left
                if not left:
                    del self._watched[device]
            for watched in over:
                watched.let_go(device)
            if not left:
                return
            for watched in left:
                watched.look(device)


class WatchedFiles:
    """The files of one engine.

    Attributes:
        devices: that they lie on.
        is_over: whether nobody is to hear of them any more.
    """

    def __init__(self, stamps: Sequence[FileStamp], on_change: Callable[[str], None]) -> None:
        self.is_over = False
        self._on_change = on_change
        self._telling = threading.Lock()
        self._files: dict[int, list[_OpenFile]] = {}
        # Windows lets nobody write to a file that is mapped, nor rename one that is open.
        for stamp in () if sys.platform == "win32" else stamps:
            self._files.setdefault(stamp.device, []).append(_OpenFile(stamp))
        self.devices = tuple(self._files)

    def end(self) -> None:
        """Watch them no more. Returns at once; they are closed by the next look."""
        self.is_over = True

    def look(self, device: int | None = None) -> str | None:
        """Look at the files on one device, or at all of them; the name of one that was written over, if any was."""
        devices: Iterable[int] = self.devices if device is None else (device,)
        for each in devices:
            for file in self._files[each]:
                if file.was_written_over():
                    self._tell(file.stamp.path.name)
                    return file.stamp.path.name
        return None

    def let_go(self, device: int) -> None:
        """Close the files on one device; only the thread that looks at them may."""
        for file in self._files[device]:
            file.close()

    def _tell(self, name: str) -> None:
        with self._telling:
            is_news, self.is_over = not self.is_over, True
        if is_news:
            self._on_change(name)


class WatchedWeights:
    """Parked weights whose files are watched until they are released."""

    def __init__(self, weights: HeldWeights, files: WatchedFiles) -> None:
        self._weights, self._watched = weights, files

    def release(self) -> None:
        """Give them up, once."""
        self._watched.end()
        self._weights.release()


class _OpenFile:
    """A file that is looked at through a descriptor; by its path, where there is none to be had."""

    def __init__(self, stamp: FileStamp) -> None:
        self.stamp = stamp
        self._descriptor: int | None = None
        # The look below and the end may come from two threads.
        self._lock = threading.Lock()
        self._is_replaced = False
        try:
            descriptor = os.open(stamp.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            logger.warning("%s is watched by its name alone: it cannot be opened (%s)", stamp.path, error.strerror)
            return
        found = FileStamp.of(stamp.path, os.fstat(descriptor))
        if found.contents == stamp.contents:
            # Whatever number it has now.
            self.stamp = found
        elif change(stamp, found) == "replaced":
            # The engine meets the other file too, and refuses it.
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
                # Of one that is open: a network's file system has lost it, and its pages with it.
                return self._descriptor is not None
            return change(self.stamp, FileStamp.of(self.stamp.path, status)) == "written over"

    def close(self) -> None:
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
            self._is_replaced = True
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)
