"""Units of systemd for a server, and the socket that systemd passes to it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modelyard.cli import app
from modelyard.cli.service.units import service_unit, socket_unit
from modelyard.system.socket_activation import activation_socket


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    file = tmp_path / "models.toml"
    file.write_text('[server]\nport = 4321\n[[models]]\nmodel_id = "org/name"\n')
    return file


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that notes its arguments."""
    calls, program = tmp_path / "calls", tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return calls


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["service", *arguments])


def test_a_service_is_written_enabled_and_removed(config: Path, systemctl: Path) -> None:
    assert run("install", str(config)).exit_code == 0
    folder = Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user"
    assert config.with_suffix(".d").is_dir()
    assert f"serve {config}" in (folder / "modelyard.service").read_text()
    assert systemctl.read_text() == "--user daemon-reload\n--user enable --now modelyard.service\n"
    systemctl.unlink()
    assert run("remove").exit_code == 0
    assert list(folder.iterdir()) == []
    assert systemctl.read_text() == "--user disable --now modelyard.service\n--user daemon-reload\n"
    assert "There is no modelyard.service" in run("remove").stderr


def test_a_service_on_demand_has_a_socket_at_the_servers_address(config: Path, systemctl: Path) -> None:
    assert run("install", str(config), "--on-demand").exit_code == 0
    folder = Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user"
    assert "ListenStream=127.0.0.1:4321" in (folder / "modelyard.socket").read_text()
    assert "Requires=modelyard.socket" in (folder / "modelyard.service").read_text()
    assert systemctl.read_text().endswith("enable --now modelyard.socket\n")


def test_a_configuration_with_a_mistake_is_not_installed(config: Path, systemctl: Path) -> None:
    config.write_text("nonsense")
    assert run("install", str(config)).exit_code != 0
    assert not systemctl.exists()


def test_printing_writes_nothing(config: Path, systemctl: Path) -> None:
    assert "[Service]" in run("install", str(config), "--print").stdout
    assert not systemctl.exists()


def test_words_of_a_command_are_written_as_systemd_reads_them() -> None:
    odd = Path('/a "b" 100%/$models.toml')
    unit = service_unit(["/bin/modelyard"], odd, is_activated=False)
    assert 'ExecStart=/bin/modelyard serve "/a \\"b\\" 100%%/$$models.toml"\n' in unit
    assert "ListenStream=[::1]:1234\n" in socket_unit("::1", 1234)


def test_a_socket_is_taken_where_it_was_passed_to_this_process() -> None:
    program = (
        "import os, socket\n"
        "from modelyard.system.socket_activation import activation_socket\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "print(activation_socket(os.environ).getsockname()[1], 'LISTEN_FDS' in os.environ)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def pass_on() -> None:
            os.dup2(listener.fileno(), 3)

        ran = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "LISTEN_FDS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            preexec_fn=pass_on,
            close_fds=False,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ran.stdout.split() == [str(port), "False"], ran.stderr


@pytest.mark.parametrize("variables", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_FDS": "x"}])
def test_a_socket_of_another_process_is_left_alone(variables: dict[str, str]) -> None:
    assert activation_socket(variables) is None
    assert variables == {}
