"""The door of a real server, as its command starts it: its certificate, its readers, and those who never come in."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

import httpx

from integration.test_command_line import COMMAND, WAIT_S
from support import raw_http

CERTIFICATES = Path(raw_http.__file__).parent / "certificates"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_server_that_nobody_reads_serves_over_tls_and_stops_at_once(weights: dict[str, Path], tmp_path: Path) -> None:
    for name in ("server.pem", "server.key"):
        shutil.copy(CERTIFICATES / name, tmp_path)
    port = free_port()
    config = tmp_path / "models.toml"
    config.write_text(
        f'[server]\nport = {port}\nssl_certfile = "server.pem"\nssl_keyfile = "server.key"\n'
        f'[[models]]\nmodel_id = "{weights["smollm2"]}"\nload = "on-demand"\n'
    )
    url = f"https://localhost:{port}"
    verify = ssl.create_default_context(cafile=tmp_path / "server.pem")
    process = subprocess.Popen(
        [*COMMAND, "from-config", "-f", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        # As `| head` does before the first line.
        process.stdout.close()
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                assert httpx.get(f"{url}/health", verify=verify, timeout=WAIT_S).text == "OK"
                break
            except httpx.ConnectError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert httpx.get(f"{url}/v1/models", verify=verify, timeout=WAIT_S).status_code == 200
        unfinished = [socket.create_connection(("127.0.0.1", port), WAIT_S) for _ in range(50)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
        for connection in unfinished:
            connection.close()
    finally:
        process.kill()
        process.wait(WAIT_S)
