"""``modelyard serve``: an HTTP server with one model."""

from __future__ import annotations

from modelyard.cli.hosting import host_server
from modelyard.cli.options import (
    AllowedHostOption,
    HostOption,
    ModelOption,
    ModelOptions,
    NoSupervisorOption,
    PortOption,
    one_model,
    takes_model_options,
)


@takes_model_options()
def serve(
    model: ModelOption,
    host: HostOption = None,
    port: PortOption = None,
    allowed_host: AllowedHostOption = None,
    no_supervisor: NoSupervisorOption = False,
    *,
    options: ModelOptions,
) -> None:
    """Serve one model over HTTP. For several, see [bold]from-config[/]."""
    config = one_model(model, options, host=host, port=port, allowed_hosts=allowed_host)
    host_server(config, is_supervised=not no_supervisor)
