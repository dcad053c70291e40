"""Prints the served models, and a command to try one, when the server has started."""

from __future__ import annotations

import json
import logging
import shlex
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from modelyard.config import Config, is_loopback
from modelyard.version import __version__
from modelyard.yard.stats.status import ModelStatus

logger = logging.getLogger(__name__)

# Maximum number of models in the printed table; GET /v1/models lists all.
MAX_SHOWN: Final = 30
_ALL_HOSTS: Final = frozenset({"0.0.0.0", "::"})


def greet(console: Console, config: Config, models: list[ModelStatus], port: int, *, needs_key: bool) -> None:
    """Print the ``models`` that are served on ``port``, and a command, to be pasted, that tries one."""
    host = config.server.host
    reachable = "localhost" if host in _ALL_HOSTS else f"[{host}]" if ":" in host else host
    scheme = "http" if config.server.ssl_certfile is None else "https"
    url = f"{scheme}://{reachable}:{port}/v1"
    console.print(f"[bold]Modelyard {__version__}[/] serves {_count(models)} at [bold]{url}[/]\n")
    console.print(_table(models))
    shown = next((model for model in models if model.is_default), models[0])
    console.print("\n[bold]Try it:[/]")
    # Printed without the console, because a wrapped or marked-up command could not be pasted.
    print(curl_line(url, shown, needs_key=needs_key), flush=True)  # noqa: T201
    if not needs_key and not is_loopback(host):
        logger.warning(
            "Any client that reaches this machine can use the models: the server listens on %s, and there are no API "
            "keys. Set api_keys under [server].",
            host,
        )
    console.print("\nCtrl-C stops it.")


def _count(models: list[ModelStatus]) -> str:
    return "1 model" if len(models) == 1 else f"{len(models)} models"


def _table(models: list[ModelStatus]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("Model", "Status", "Quantisation", "Context", "Weights", ""):
        table.add_column(heading, justify="right" if heading in ("Context", "Weights") else "left", no_wrap=True)
    for model in models[:MAX_SHOWN]:
        table.add_row(
            model.id,
            model.status,
            model.quantization or "",
            str(model.context_length or ""),
            "" if model.size_bytes is None else f"{model.size_bytes / 1e6:,.0f} MB",
            "default" if model.is_default else "",
        )
    if len(models) > MAX_SHOWN:
        table.add_row(f"and {len(models) - MAX_SHOWN} more")
    return table


def curl_line(url: str, model: ModelStatus, *, needs_key: bool) -> str:
    """Return a curl command that sends ``model`` at ``url`` a request of a kind that it supports."""
    path, fields = _example_request(model)
    body = json.dumps({"model": model.id, **fields})
    key = " -H 'Authorization: Bearer <one of the API keys>'" if needs_key else ""
    return f"curl {url}{path} -H 'Content-Type: application/json'{key} -d {shlex.quote(body)}"


def _example_request(model: ModelStatus) -> tuple[str, dict[str, Any]]:
    if model.kind == "embedding":
        return "/embeddings", {"input": "Hello!"}
    if model.kind == "rerank":
        return "/rerank", {"query": "Hello?", "documents": ["Good morning!", "The sea is wide."]}
    if model.can_chat is False:
        return "/completions", {"prompt": "Once upon a time", "max_tokens": 64}
    return "/chat/completions", {"messages": [{"role": "user", "content": "Hello!"}]}
