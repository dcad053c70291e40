"""Takes the address of a server, puts the server under a supervisor, and runs it."""

from __future__ import annotations

import os
from collections.abc import Callable

from modelyard.config import Config, read_keys
from modelyard.inprocess.http_server.tls import certificate_of
from modelyard.inprocess.listen import listen
from modelyard.system import supervised
from modelyard.system.standard_streams import outlive_readers


def host_server(config: Config, read_config: Callable[[], Config] | None = None, *, is_supervised: bool) -> None:
    """Load the models, serve them, and return when SIGINT or SIGTERM asked for it.

    What is imported up to here is little, and nothing is loaded, when this process splits into the server and its
    supervisor: the server goes on in a fork, and the supervisor, which keeps this process's id, starts it again with
    the same command when it dies.

    Args:
        read_config: reads the configuration again on SIGHUP.
        is_supervised: False serves in this process alone.

    Raises:
        PortUnavailable: the address is taken or not ours. Nothing was loaded.
        ConfigError: a key is not where the configuration says, or the certificate cannot be used; or as Yard.start.
        ModelLoadFailed: as Yard.start.
    """
    outlive_readers()
    keys = read_keys(config)
    tls = certificate_of(config.server)
    passed_on = supervised.inherited(os.environ)
    if passed_on is not None:
        listener, link = passed_on
    else:
        listener, link = listen(config.server.host, config.server.port), None
        if is_supervised and supervised.can_be_supervised():
            link = supervised.put_under_supervisor(listener, reloads=read_config is not None)
    from modelyard.cli.server import run_server

    run_server(config, keys, listener, read_config, link, tls)
