"""``modelyard deploy --kuberay``: prints a RayService for a cluster of Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

import typer
import yaml  # type: ignore[import-untyped]

from modelyard.cli.usage import UsageError
from modelyard.cluster.kuberay import LiteralKey, Pods, manifest
from modelyard.config import Config
from modelyard.config.sizes import read_size
from modelyard.errors import MissingExtra


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes texts of several lines as they are."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def print_manifest(
    config: Config,
    tables: Mapping[str, Any],
    source: str,
    *,
    image: str | None,
    port: int,
    cpus: int,
    memory: str,
    gpus: int,
) -> None:
    """Print the manifest of a configuration as YAML.

    Args:
        config: the configuration.
        tables, source: the tables of its file, and the name of that.
        image, cpus, memory, gpus: of the pods.
        port: where the front listens.

    Raises:
        UsageError: there is no image, the size is none, or the file has an API key.
        MissingExtra: Ray is not installed, whose version the manifest names.
    """
    if image is None:
        raise UsageError("--kuberay needs an image that has Ray and Modelyard: --image REGISTRY/NAME:TAG")
    try:
        size_bytes = read_size(memory)
    except ValueError as wrong:
        raise UsageError(f"--node-memory '{memory}' is not {wrong}.") from None
    try:
        ray_version = metadata.version("ray")
    except metadata.PackageNotFoundError as missing:
        raise MissingExtra("modelyard deploy", "ray[serve]", "ray") from missing
    try:
        found = manifest(config, tables, source, Pods(image, ray_version, port, cpus, size_bytes, gpus))
    except LiteralKey as literal:
        raise UsageError(str(literal)) from None
    typer.echo(yaml.dump(found, Dumper=_Dumper, sort_keys=False, width=120), nl=False)
