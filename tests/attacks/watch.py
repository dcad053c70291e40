"""What others notice of an attack: how long ``/health`` takes, and how much memory the server has."""

from __future__ import annotations

import http.client
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

_EVERY_S: Final = 0.02
_WAIT_S: Final = 60.0


class Watch:
    """Asks for the health of a server all the time, each time on a new connection, as a load balancer does.

    Attributes:
        slowest_s: the longest answer since ``begin``.
        failures: answers that were none, or not 200, since ``begin``.
        most_bytes: memory of the server's process since ``begin``, at the most.
    """

    def __init__(self, url: str, pid: int) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port
        self._status = Path(f"/proc/{pid}/status")
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="health", daemon=True)
        self.begin()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(_WAIT_S)

    def begin(self) -> None:
        """Begin to measure anew."""
        self.slowest_s, self.most_bytes = 0.0, 0
        self.failures: list[str] = []

    def _look(self) -> None:
        while not self._is_over.wait(_EVERY_S):
            began = time.monotonic()
            connection = http.client.HTTPConnection(self._host, self._port, timeout=_WAIT_S)
            try:
                connection.request("GET", "/health")
                status = connection.getresponse().status
                if status != 200:
                    self.failures.append(str(status))
            except (OSError, http.client.HTTPException) as failure:
                self.failures.append(repr(failure))
            finally:
                connection.close()
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            with suppress(OSError):
                self.most_bytes = max(self.most_bytes, self._resident())

    def _resident(self) -> int:
        """Memory that is the process's own: pages of model files that it maps are left out."""
        lines = self._status.read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
