"""The configuration that command-line options become."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any, get_type_hints

from modelyard.cli.options import ModelOption, ModelOptions, one_model, takes_model_options


def test_names_of_the_server_may_be_given() -> None:
    options = ModelOptions()
    assert one_model("m", options, server={"allowed_hosts": ["modelyard", "*.lan"]}).server.allowed_hosts == (
        "modelyard",
        "*.lan",
    )
    assert one_model("m", options).server.allowed_hosts == ()


def test_a_command_gets_a_parameter_for_each_option_of_a_model_and_collects_them() -> None:
    calls: list[dict[str, Any]] = []

    @takes_model_options(without=("max_seqs", "chat_template"))
    def command(model: ModelOption, *, options: ModelOptions, as_json: bool = False) -> None:
        calls.append({"model": model, "options": options, "as_json": as_json})

    defaults = {field.name: field.default for field in fields(ModelOptions)}
    offered = [name for name in defaults if name not in ("max_seqs", "chat_template")]
    parameters = inspect.signature(command).parameters
    assert list(parameters) == ["model", *offered, "as_json"]
    hints = get_type_hints(ModelOptions, include_extras=True)
    assert all(parameters[name].annotation == hints[name] for name in offered)
    command(model="m", as_json=True, **{**{name: defaults[name] for name in offered}, "cpu": True, "ctx": 512})
    assert calls == [{"model": "m", "options": ModelOptions(cpu=True, ctx=512), "as_json": True}]
