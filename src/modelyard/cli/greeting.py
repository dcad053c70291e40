"""Prints the served models, their memory, the addresses, and a command to try one, when the server has started."""

from __future__ import annotations

import json
import logging
import shlex
import socket
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from modelyard.cli.client.address import ALL_HOSTS, origin
from modelyard.config import Config, is_loopback
from modelyard.system.printable import printable
from modelyard.system.quantities import count_text, part_text, size_text
from modelyard.version import __version__
from modelyard.yard.stats.device_memory import DeviceUse
from modelyard.yard.stats.status import ModelStatus

logger = logging.getLogger(__name__)

# Maximum number of models in the printed table; GET /v1/models lists all.
MAX_SHOWN: Final = 30

_HEADINGS: Final = ("Model", "Status", "Quantisation", "Context", "Size", "Memory")
_RIGHT: Final = frozenset({"Context", "Size", "Memory"})
_GAP: Final = 2

_STYLES: Final = {"loaded": "green", "unusable": "red"}


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory of all models together, in bytes.

    Attributes:
        used_bytes: what they take now.
        budget_bytes: what they may take.
        machine_bytes: what the machine has, or the control group of the server.
        devices: memory of devices, by their names.
    """

    used_bytes: int
    budget_bytes: int
    machine_bytes: int
    devices: Mapping[str, DeviceUse] = field(default_factory=dict)


def greet(
    console: Console, config: Config, models: Sequence[ModelStatus], memory: MemoryUse, port: int, *, needs_key: bool
) -> None:
    """Print the ``models`` that are served on ``port``, where, and a command, to be pasted, that tries one."""
    host = config.server.host
    urls = [f"{url}/v1" for url in addresses(config, port)]
    console.print(
        Text.assemble(
            (f"Modelyard {__version__}", "bold"), f" serves {count_text(len(models), 'model')} at ", (urls[0], "bold")
        ),
        soft_wrap=True,
    )
    for url in urls[1:]:
        console.print(f"Other machines reach it at {url}", soft_wrap=True, markup=False)
    shown, load = models[:MAX_SHOWN], {model.id: model.load for model in config.models}
    rows = [_cells(model, is_on_demand=load.get(model.id) == "on-demand") for model in shown]
    console.print()
    width = console.width if console.is_terminal else None
    for line in model_lines(rows, width):
        console.print(line, soft_wrap=True)
    if len(models) > MAX_SHOWN:
        console.print(f"and {len(models) - MAX_SHOWN} more: GET /v1/models lists all")
    console.print()
    console.print(memory_line(memory), soft_wrap=True)
    for device_line in device_lines(memory):
        console.print(device_line, soft_wrap=True, markup=False)
    console.print(f"Docs: {urls[0].removesuffix('/v1')}/docs", soft_wrap=True, markup=False)
    if (mcp_port := config.server.mcp_port) is not None:
        console.print(f"MCP alone: {addresses(config, mcp_port)[0]}/mcp", soft_wrap=True, markup=False)
    if not models:
        console.print("\nThere is no model yet. They are served as soon as they are found.")
    else:
        _print_example(console, urls[0], models, needs_key=needs_key)
    warn_where_open(host, needs_key=needs_key)
    console.print("\nCtrl-C stops it.")


def warn_where_open(host: str, *, needs_key: bool) -> None:
    """Warn of a server that the network reaches and that asks for no keys."""
    if not needs_key and not is_loopback(host):
        logger.warning(
            "Any client that reaches this machine can use the models: the server listens on %s, and there are no API "
            "keys. Set api_keys under [server].",
            host,
        )


def _print_example(console: Console, url: str, models: Sequence[ModelStatus], *, needs_key: bool) -> None:
    example = min(models, key=lambda model: (model.files == "unusable", not model.is_default))
    console.print(Text("\nTry it:", "bold"))
    # Printed without the console, because a wrapped or marked-up command could not be pasted.
    print(curl_line(url, example, needs_key=needs_key), file=console.file)


def addresses(config: Config, port: int) -> list[str]:
    """Return the URLs of the server: for this machine first, then, where all of its interfaces listen, for others."""
    host = config.server.host
    scheme = "http" if config.server.ssl_certfile is None else "https"
    if host not in ALL_HOSTS:
        return [origin(scheme, host, port)]
    own = socket.gethostname()
    return [origin(scheme, name, port) for name in dict.fromkeys(("localhost", own))]


def memory_line(memory: MemoryUse) -> str:
    """Return what the models may take of the machine's memory, and what they take."""
    budget = part_text(memory.budget_bytes, memory.machine_bytes)
    return f"Memory: {budget} for models, {size_text(memory.used_bytes)} in use"


def device_lines(memory: MemoryUse) -> list[str]:
    """Return what the models may take of each device, and what they take."""
    return [
        f"{name}: {size_text(use.budget_bytes)} for models, {size_text(use.used_bytes)} in use"
        for name, use in memory.devices.items()
    ]


def _status(model: ModelStatus, *, is_on_demand: bool) -> str:
    if model.status == "loaded":
        return "loaded"
    if model.files == "unusable":
        return "unusable"
    if model.files == "remote":
        return "not downloaded"
    if model.is_parked:
        return "parked"
    return "on demand" if is_on_demand else "when asked"


def _cells(model: ModelStatus, *, is_on_demand: bool) -> tuple[str, ...]:
    """Return the cells of a model, in the order of ``_HEADINGS``, and what else there is to say of it."""
    memory = model.resident_bytes or model.predicted_bytes
    return (
        printable(model.id),
        _status(model, is_on_demand=is_on_demand),
        model.quantization or "",
        "" if model.context_length is None else f"{model.context_length:,}",
        "" if model.size_bytes is None else size_text(model.size_bytes),
        "" if memory is None else size_text(memory),
        "default" if model.is_default else "",
    )


def model_lines(rows: Sequence[Sequence[str]], width: int | None) -> list[Text]:
    """Return the lines of a table; where that is wider than ``width``, a few lines for each model. No id is cut."""
    table = [(*_HEADINGS, ""), *rows]
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    if width is not None and sum(widths) + _GAP * (len(widths) - 1) > width:
        return [line for row in rows for line in _stacked(row, width)]
    lines = []
    for number, row in enumerate(table):
        line = Text(style="bold" if number == 0 else "")
        for heading, cell, cells in zip((*_HEADINGS, ""), row, widths, strict=True):
            space = " " * (cells - cell_len(cell))
            style = _STYLES.get(cell, "") if heading == "Status" else ""
            line.append(f"{space}{cell}" if heading in _RIGHT else f"{cell}{space}", style).append(" " * _GAP)
        line.rstrip()
        lines.append(line)
    return lines


def _stacked(row: Sequence[str], width: int) -> list[Text]:
    name, status, quantization, context, size, memory, note = row
    facts = (
        status,
        note,
        quantization,
        f"context {context}" if context else "",
        f"file {size}" if size else "",
        f"memory {memory}" if memory else "",
    )
    details = ", ".join(fact.replace(" ", "\xa0") for fact in facts if fact)
    wrapped = textwrap.wrap(details, max(20, width - 2), break_long_words=False)
    return [Text(name, "bold"), *(Text(f"  {line}".replace("\xa0", " ")) for line in wrapped)]


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
