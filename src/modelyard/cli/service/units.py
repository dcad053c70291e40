"""The text of systemd's units for a server. Pure.

The unit may write where the server keeps files, and nowhere else. Devices stay visible, because GPUs are; memory may be
executable, because their drivers compile programs. Source: systemd.exec(5), systemd.socket(5).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

NAME: Final = "modelyard"

# Below the home folder, relative to it. A folder that does not exist is left out by systemd, because of the dash.
_WRITABLE: Final = (".cache", ".local/share/modelyard", ".local/state", ".config/modelyard")

_SANDBOX: Final = """\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
SystemCallArchitectures=native
UMask=0077
"""


def service_unit(program: Sequence[str], config: Path, *, is_activated: bool) -> str:
    """Return the unit of the server.

    Args:
        program: the command ``modelyard``, as words.
        config: the configuration that it serves.
        is_activated: whether it starts with the first connection, to the socket of ``socket_unit``.
    """
    command = " ".join(map(_word, (*program, "serve", str(config))))
    added = _word(str(config.with_suffix(".d")))
    writable = " ".join(f"-%h/{folder}" for folder in _WRITABLE)
    requires = f"Requires={NAME}.socket\n" if is_activated else ""
    install = "" if is_activated else "\n[Install]\nWantedBy=default.target\n"
    return (
        f"[Unit]\nDescription=Modelyard, a server of language models\n{requires}\n"
        f"[Service]\nType=exec\nExecStart={command}\nExecReload=/bin/kill -HUP $MAINPID\n"
        "Restart=on-failure\nRestartSec=5\nOOMPolicy=continue\nTimeoutStopSec=60\n"
        f"ReadWritePaths={writable} -%t -{added}\n{_SANDBOX}{install}"
    )


def socket_unit(host: str, port: int) -> str:
    """Return the unit of the socket to which a connection starts the server."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return (
        "[Unit]\nDescription=The address of Modelyard\n\n"
        f"[Socket]\nListenStream={address}\nNoDelay=yes\n\n[Install]\nWantedBy=sockets.target\n"
    )


def _word(text: str) -> str:
    """Return a word of a command line as systemd reads it. Source: systemd.service(5), "Command lines"."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return escaped if re.fullmatch(r"[\w@%+=:,./$-]+", escaped, re.ASCII) else f'"{escaped}"'
