"""``modelyard deploy``: serves the models of a TOML file on a Ray cluster."""

from __future__ import annotations

import tomllib
from typing import Annotated

import typer

from modelyard.cli.model_names import config_path
from modelyard.cli.options import ConfigArgument, ConfigOption
from modelyard.cli.usage import UsageError


def deploy(
    file: ConfigArgument = None,
    config: ConfigOption = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="ADDRESS",
            help="The Ray cluster: `auto` for the one of this machine, or `ray://host:10001`. [dim]\\[default: a new "
            "one on this machine, until Ctrl-C][/]",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on, on Ray's head.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", metavar="PORT", help="Port to listen on.")] = 8000,
    kuberay: Annotated[
        bool,
        typer.Option(
            "--kuberay",
            help="Deploy nothing, and print a RayService of it, for kubectl apply.",
            rich_help_panel="KubeRay",
        ),
    ] = False,
    image: Annotated[
        str | None,
        typer.Option(
            "--image", metavar="IMAGE", help="Image of the pods: it has Ray and Modelyard.", rich_help_panel="KubeRay"
        ),
    ] = None,
    cpus: Annotated[
        int,
        typer.Option("--node-cpus", metavar="N", min=1, help="Processors of a node.", rich_help_panel="KubeRay"),
    ] = 4,
    memory: Annotated[
        str,
        typer.Option("--node-memory", metavar="SIZE", help="Memory of a node.", rich_help_panel="KubeRay"),
    ] = "16GiB",
    gpus: Annotated[
        int,
        typer.Option("--node-gpus", metavar="N", min=0, help="GPUs of a node.", rich_help_panel="KubeRay"),
    ] = 0,
) -> None:
    """Serve the models of a TOML file on the nodes of a Ray cluster, behind one address.

    Its table ``cluster`` says how many nodes there are, and how models are spread. Deployed again, a changed file is
    taken over without a failed request.
    """
    path = config_path(file, config, command="deploy")
    from modelyard.cli.greeting import warn_where_open
    from modelyard.cli.manifest import print_manifest
    from modelyard.config import load_config, read_keys
    from modelyard.errors import MissingExtra

    # For its mistakes, with their positions.
    loaded = load_config(path)
    tables = tomllib.loads(path.read_text("utf-8"))
    if kuberay:
        print_manifest(loaded, tables, path.name, image=image, port=port, cpus=cpus, memory=memory, gpus=gpus)
        return
    if image is not None:
        raise UsageError("--image is for the pods of --kuberay.")
    try:
        from modelyard.cluster.application import deploy as deploy_application
        from modelyard.cluster.application import settings_of, wait_for_interrupt
    except ImportError as missing:
        raise MissingExtra("modelyard deploy", "ray[serve]", "ray") from missing
    settings = settings_of(tables, path.name, path.parent.absolute())
    url = deploy_application(settings, address, host, port)
    typer.echo(f"Serving at {url}")
    warn_where_open(host, needs_key=bool(read_keys(loaded)))
    if address is None:
        wait_for_interrupt()
