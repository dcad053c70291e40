"""The printed command sends a model a request of a kind that it supports."""

from __future__ import annotations

import json
import shlex
import socket
from dataclasses import replace

import pytest
from rich.console import Console

from modelyard.cli.greeting import MemoryUse, addresses, curl_line, device_lines, greet, memory_line, model_lines
from modelyard.config import Config, Server, validate_config
from modelyard.hub import Kind
from modelyard.yard.stats.device_memory import DeviceUse
from modelyard.yard.stats.status import ModelStatus

URL = "http://localhost:1234/v1"


def a_model(kind: Kind | None, *, can_chat: bool | None) -> ModelStatus:
    unknown = dict.fromkeys(
        (
            *("context_length", "quantization", "size_bytes", "architecture", "dimensions", "predicted_bytes"),
            *("can_see", "can_hear", "can_reason", "can_fill", "reason", "load_s"),
        )
    )
    return ModelStatus(
        id="it's m",
        aliases=(),
        kind=kind,
        status="loaded",
        is_default=True,
        created=0,
        can_chat=can_chat,
        shared_bytes=0,
        resident_bytes=0,
        is_pinned=False,
        is_parked=False,
        **unknown,
    )


@pytest.mark.parametrize(
    ("kind", "can_chat", "path", "fields"),
    [
        ("text", True, "/chat/completions", {"messages"}),
        ("multimodal", True, "/chat/completions", {"messages"}),
        (None, None, "/chat/completions", {"messages"}),
        ("text", False, "/completions", {"prompt", "max_tokens"}),
        ("embedding", False, "/embeddings", {"input"}),
        ("rerank", False, "/rerank", {"query", "documents"}),
    ],
)
def test_each_kind_is_asked_what_it_answers(
    kind: Kind | None, can_chat: bool | None, path: str, fields: set[str]
) -> None:
    words = shlex.split(curl_line(URL, a_model(kind, can_chat=can_chat), needs_key=False))
    assert words[:2] == ["curl", URL + path]
    body = json.loads(words[-1])
    assert body.pop("model") == "it's m"
    assert set(body) == fields


def test_a_key_is_asked_for_where_one_is_needed() -> None:
    line = curl_line(URL, a_model("text", can_chat=True), needs_key=True)
    assert "Authorization: Bearer <one of the API keys>" in shlex.split(line)


ROWS = [
    ("small", "loaded", "Q4_1", "8,192", "97 MB", "437 MB", "default"),
    ("an-id-that-is-longer-than-a-narrow-terminal-is-wide", "not downloaded", "", "", "", "", ""),
    ("big", "on demand", "Q4_K_M", "131,072", "12.4 GB", "14.1 GB", ""),
]


@pytest.mark.parametrize("width", [None, 200])
def test_models_are_a_table_where_it_fits_and_where_nothing_is_a_terminal(width: int | None) -> None:
    lines = [line.plain for line in model_lines(ROWS, width)]
    assert len(lines) == 1 + len(ROWS)
    assert lines[0].split() == ["Model", "Status", "Quantisation", "Context", "Size", "Memory"]
    assert lines[1].split() == ["small", "loaded", "Q4_1", "8,192", "97", "MB", "437", "MB", "default"]
    assert lines[3].index("on demand") == lines[1].index("loaded")


@pytest.mark.parametrize("width", [40, 80])
def test_models_are_stacked_where_the_table_does_not_fit_and_no_id_is_cut(width: int) -> None:
    lines = [line.plain for line in model_lines(ROWS, width)]
    ids = {row[0] for row in ROWS}
    assert [line for line in lines if not line.startswith(" ")] == [row[0] for row in ROWS]
    assert all(len(line) <= width for line in lines if line not in ids)
    assert "12.4 GB" in "\n".join(lines), "a number stays with its unit"


def test_the_memory_of_the_models_is_named_beside_that_of_the_machine() -> None:
    use = MemoryUse(used_bytes=437_000_000, budget_bytes=12_000_000_000, machine_bytes=15_600_000_000)
    assert memory_line(use) == "Memory: 12.0 of 15.6 GB for models, 437 MB in use"


def test_a_server_on_all_interfaces_is_found_under_the_name_of_the_machine_too() -> None:
    config = Config.model_validate({"server": {"host": "0.0.0.0"}, "models": [{"model_id": "a.gguf"}]})
    local, network = addresses(config, 99)
    assert (local, network) == ("http://localhost:99", f"http://{socket.gethostname()}:99")
    assert addresses(config.model_copy(update={"server": Server(host="::1")}), 99) == ["http://[::1]:99"]


def test_the_port_of_mcp_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    config = validate_config({"models": [{"model_id": "/m.gguf", "alias": "x"}], "server": {"mcp_port": 1235}})
    model = a_model("text", can_chat=True)
    greet(Console(width=200), config, [model], MemoryUse(1, 2, 3), 1234, needs_key=False)
    assert "MCP alone: http://127.0.0.1:1235/mcp" in capsys.readouterr().out


def test_an_id_does_not_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    config = validate_config({"models": [{"model_id": "/m.gguf", "alias": "x"}]}, source="test")
    model = replace(a_model("text", can_chat=True), id="x\x1b]0;title\x07\ny")
    greet(Console(width=200), config, [model], MemoryUse(1, 2, 3), 1234, needs_key=False)
    shown = capsys.readouterr().out
    assert "x\\x1b]0;title\\x07\\ny" in shown
    assert "\x1b" not in shown


def test_a_model_that_cannot_be_served_is_not_the_one_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    damaged = replace(a_model("text", can_chat=True), id="damaged", files="unusable")
    usable = replace(a_model("text", can_chat=True), id="usable", is_default=False)
    config = validate_config({"models": [{"model_id": "damaged.gguf"}, {"model_id": "usable.gguf"}]})
    greet(Console(), config, [damaged, usable], MemoryUse(0, 1, 1), 1234, needs_key=False)
    assert '"model": "usable"' in capsys.readouterr().out.replace("\n", "")


def test_the_memory_of_each_device_is_told_and_nothing_without_any():
    use = MemoryUse(1, 2, 3, {"CUDA0": DeviceUse(23_200_000_000, 0), "CUDA1": DeviceUse(0, 437_000_000)})
    assert device_lines(use) == [
        "CUDA0: 23.2 GB for models, 0 B in use",
        "CUDA1: 0 B for models, 437 MB in use",
    ]
    assert device_lines(MemoryUse(1, 2, 3)) == []
