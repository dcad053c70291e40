"""The commands show the memory of devices, and where each model is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from modelyard.cli import app
from modelyard.cli.client.events import EventPrinter
from support.models_on_devices import serving_on_devices
from support.server import RunningServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with serving_on_devices(tmp_path) as (server, _):
        yield server


def run(server: RunningServer, *args: str) -> Result:
    done = CliRunner().invoke(app, list(args), env={"MODELYARD_HOST": server.url, "COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    return done


def fields(server: RunningServer, model: str) -> dict[str, str]:
    lines = run(server, "show", model).stdout.splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition("  ") for line in lines)}


def test_load_says_where_the_model_is(server: RunningServer) -> None:
    assert run(server, "load", "small").stdout.startswith("small is loaded on CUDA0 (41 MB of memory, ")
    assert run(server, "load", "large").stdout.startswith("large is loaded on CUDA0+CUDA1 75:25 (101 MB of memory, ")


def test_ps_shows_the_placement_of_each_model_and_what_is_in_use_of_each_device(server: RunningServer) -> None:
    run(server, "load", "small")
    done = run(server, "ps")
    heading, *rows = done.stdout.splitlines()
    assert "Device" in heading
    assert "CUDA0" in next(row for row in rows if row.startswith("small"))
    host, *devices = done.stderr.strip().splitlines()
    assert host.startswith("1 MB of ")
    assert host.endswith(" of the host in use.")
    assert devices == ["40 MB of 100 MB of CUDA0 in use.", "Nothing of 100 MB of CUDA1 in use."]


def test_show_has_the_placement_and_what_the_model_takes_of_each_device(server: RunningServer) -> None:
    assert not {"Device", "Of devices"} & {name for name, value in fields(server, "large").items() if "CUDA" in value}
    run(server, "load", "large")
    shown = fields(server, "large")
    assert (shown["Device"], shown["Of devices"]) == ("CUDA0+CUDA1 75:25", "75 MB of CUDA0, 25 MB of CUDA1")


def test_plan_says_what_each_device_gives_and_how_fast_the_model_is_there(server: RunningServer) -> None:
    run(server, "load", "small")
    first, speed, evicted = run(server, "plan", "large").stdout.splitlines()
    assert first.startswith(
        "large needs 75 MB, and 60 MB of 100 MB are free on CUDA0; 25 MB, and 100 MB of 100 MB are free on CUDA1; 1 MB"
    )
    assert " on the host. It would take the place of 1 model without requests. Its load on CUDA0+CUDA1 75:25 " in first
    assert speed == "There it computes about 50 tokens of an answer in a second."
    assert evicted.startswith("  small: 20 MB of CUDA0, ")


def test_plan_of_a_loaded_model_says_where_it_is(server: RunningServer) -> None:
    run(server, "load", "small")
    assert run(server, "plan", "small").stdout.startswith("small is loaded on CUDA0.\n")


def test_an_event_says_where_the_model_is_loaded() -> None:
    change = {"model_id": "small", "status": "loaded", "stage": "loaded"}
    assert EventPrinter().text({**change, "placement": "CUDA0"}) == "small: loaded on CUDA0"
    assert EventPrinter().text({**change, "placement": "host"}) == "small: loaded on the host"
    assert EventPrinter().text(change) == "small: loaded"
