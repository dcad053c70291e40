"""``modelyard serve``: an HTTP server with models of the command line, or of a TOML file."""

from __future__ import annotations

from pathlib import Path

from modelyard.cli.model_names import read_names
from modelyard.cli.options import (
    AllowedHostOption,
    ConfigOption,
    DiscoverOption,
    HostOption,
    MaxToolRoundsOption,
    McpConfigOption,
    McpPortOption,
    ModelOptions,
    ModelsArgument,
    ModelsOption,
    NoSupervisorOption,
    PortOption,
    server_keys,
    takes_model_options,
)
from modelyard.cli.usage import UsageError


@takes_model_options()
def serve(
    names: ModelsArgument = None,
    model: ModelsOption = None,
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    allowed_host: AllowedHostOption = None,
    mcp_config: McpConfigOption = None,
    mcp_port: McpPortOption = None,
    max_tool_rounds: MaxToolRoundsOption = None,
    no_supervisor: NoSupervisorOption = False,
    discover: DiscoverOption = False,
    *,
    options: ModelOptions,
) -> None:
    """Serve models over HTTP, in the dialects of OpenAI, Anthropic, Ollama and llama.cpp.

    The first model is the default. Of a folder with several models, each is loaded when it is first asked for.
    With ``--discover`` no model need be named.
    """
    server = server_keys(host, port, allowed_host, mcp_port, max_tool_rounds)
    named = read_names(names or (), model or (), config, command="serve")
    if named.config is not None:
        from modelyard.cli.from_config import serve_file
        from modelyard.cli.served_models import refuse_model_options

        refuse_model_options(options, named.config)
        if discover:
            raise UsageError(f'--discover: in {named.config}, write stores = ["all"] under [discover].')
        serve_file(named.config, server=server, mcp_config=mcp_config, is_supervised=not no_supervisor)
        return
    if not named.models and not discover:
        from modelyard.cli.offers import nothing_given

        raise UsageError(nothing_given(Path.cwd()))
    from modelyard.cli.hosting import host_server
    from modelyard.cli.served_models import served_models
    from modelyard.cli.typed_names import options_as_typed
    from modelyard.config import mcp_config_path

    with options_as_typed():
        mcp_file = mcp_config_path(mcp_config)
        served = served_models(named.models, options, server=server, mcp_config=mcp_file, discovers=discover)
        host_server(served, is_supervised=not no_supervisor)
