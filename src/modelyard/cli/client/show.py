"""``modelyard show``: one model of a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.cli.client.choose import choose_server_of
from modelyard.cli.client.find import problem_of
from modelyard.cli.client.model_words import context, device_sizes, place, requests, state
from modelyard.cli.client.options import JsonOption, KeyFileOption, ModelArgument, ModelOption, UrlOption
from modelyard.cli.client.output import duration, memory, print_fields, print_json
from modelyard.cli.messages import print_note
from modelyard.cli.model_names import one_model_name
from modelyard.errors import ModelNotFound, ServerUnreachable


def show(
    name: ModelArgument = None,
    model: ModelOption = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the status of one model of a running server.

    Of a file, folder or repository that no server has, the files and the memory that it needs here are shown, as by
    modelyard resolve. With --url, that server alone is asked.
    """
    wanted = one_model_name(name, model, command="show")
    try:
        server = choose_server_of([wanted], url, key_file)
    except (ModelNotFound, ServerUnreachable) as error:
        if problem_of(wanted):
            raise
        if url is not None:
            error.add_note(f"Of a model that no server has: modelyard resolve {wanted}")
            raise
        _show_unserved(wanted, as_json=as_json)
        return
    found = next(each for each in server.models if each["id"] == server.model_id(wanted))
    if as_json:
        print_json(found)
    else:
        print_fields(_fields(found))


def _show_unserved(name: str, *, as_json: bool) -> None:
    # Imports the yard, which commands for a running server do without.
    from modelyard.cli.options import ModelOptions
    from modelyard.cli.resolve import show_estimate

    print_note(f"No running server has {name}. On this machine:")
    show_estimate(name, ModelOptions(), as_json=as_json)


def _context(model: Mapping[str, Any]) -> str:
    reason = model.get("context_reason", "")
    return f"{context(model)} tokens{', ' if reason else ''}{reason}" if context(model) else ""


def _adapter(adapter: Mapping[str, Any]) -> str:
    always = ", also without its name" if "applied_scale" in adapter else ""
    return f"{adapter['id']} (scale {adapter['scale']:g}{always})"


def _fields(model: Mapping[str, Any]) -> dict[str, str]:
    names = [alias for alias in model.get("aliases", ()) if alias != model.get("source")]
    shared = memory(model.get("shared_bytes"))
    now = memory(model.get("resident_bytes"))
    return {
        "Id": model["id"],
        "Aliases": ", ".join(names),
        "From": model.get("source", ""),
        "State": state(model),
        "Error": model.get("error", ""),
        "Default": "yes" if model.get("default") else "",
        "Kind": model.get("kind", ""),
        "Does": ", ".join(model.get("capabilities", ())),
        "Takes": ", ".join(model.get("input_modalities", ())),
        "Quantisation": model.get("quantization", ""),
        "Size": memory(model.get("size_bytes")),
        "Context": _context(model),
        "Dimensions": str(model.get("dimensions", "")),
        "Memory now": f"{now}, of which {shared} are shared" if now and shared else now,
        "Memory when loaded": memory(model.get("predicted_bytes")),
        "Device": place(model),
        "Of devices": device_sizes(model.get("device_bytes")),
        "Requests": requests(model),
        "Idle": duration(model.get("idle_seconds")),
        "Pinned": "yes" if model.get("pinned") else "",
        "Unloaded": f"after {duration(model['unloads_after_seconds'])} without a request"
        if model.get("unloads_after_seconds") is not None
        else "",
        "Last load": duration(model.get("load_seconds")),
        "Engine deaths": f"{model['restarts']}, the last one: {model.get('last_death', '?')}"
        if model.get("restarts")
        else "",
        "Adapters": "\n".join(map(_adapter, model.get("adapters", ()))),
        "Limits": "\n".join(model.get("warnings", ())),
    }
