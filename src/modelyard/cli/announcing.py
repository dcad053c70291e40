"""What a server announces to the commands of its user on the same machine."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from modelyard.cli.client.address import ALL_HOSTS, origin
from modelyard.config import Config
from modelyard.system.announcements import Announcement, start_of, this_machine
from modelyard.version import __version__


def own_announcement(
    config: Config, listener: socket.socket, file: Path | None, *, is_supervised: bool
) -> Announcement:
    """Return the announcement of a server of this process that listens on ``listener``, configured by ``file``.

    Signals to the server go to its supervisor, where it has one.
    """
    server = config.server
    scheme = "http" if server.ssl_certfile is None else "https"
    pid = os.getppid() if is_supervised else os.getpid()
    return Announcement(
        url=origin(scheme, ALL_HOSTS.get(server.host, server.host), listener.getsockname()[1]),
        pid=pid,
        start=start_of(pid),
        machine=this_machine(),
        version=__version__,
        began=time.time(),
        is_serving=False,
        config=None if file is None else str(file.absolute()),
        certificate=None if server.ssl_certfile is None else str(server.ssl_certfile),
    )
