"""Binds a server's address, starts its supervisor, and runs the server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from modelyard.config import Config, read_keys
from modelyard.inprocess.http_server.tls import certificate_of
from modelyard.inprocess.listen import listen, listen_for_mcp
from modelyard.system import supervised
from modelyard.system.socket_activation import activation_socket
from modelyard.system.standard_streams import outlive_readers


def host_server(
    config: Config,
    read_config: Callable[[], Config] | None = None,
    *,
    file: Path | None = None,
    is_supervised: bool,
) -> None:
    """Load the models, serve them, and return after SIGINT or SIGTERM.

    This process forks into the server and its supervisor before it imports much or loads anything. The server goes on
    in the fork; the supervisor keeps this process's id and restarts the server with the same command when it dies.

    Args:
        config: the configuration.
        read_config: reads the configuration again on SIGHUP; None: SIGHUP stops the server.
        file: the configuration file; None: there is none.
        is_supervised: False serves in this process, without a supervisor.

    Raises:
        PortUnavailable: the address is in use or not one of this machine. No model was loaded.
        ConfigError: an API key cannot be read, or the certificate cannot be used; see also Yard.start.
        ModelLoadFailed: see Yard.start.
    """
    outlive_readers()
    keys = read_keys(config)
    tls = certificate_of(config.server)
    inherited = supervised.inherited(os.environ)
    if inherited is not None:
        listener, link = inherited
    else:
        # Of systemd, where a unit has the address: it starts the server with the first connection.
        activated = activation_socket(os.environ)
        listener, link = activated or listen(config.server.host, config.server.port), None
        if is_supervised and supervised.can_be_supervised():
            link = supervised.put_under_supervisor(listener, reloads=read_config is not None)
    # Each process of a supervised server binds this port anew: its clients open their sessions again anyway.
    mcp_listener = listen_for_mcp(config.server.host, config.server.mcp_port)
    from modelyard.cli.server import run_server

    run_server(config, keys, listener, read_config, link, tls, file, mcp_listener)
