"""``modelyard plan``: what a load of a model would do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from modelyard.cli.client.choose import choose_server_of
from modelyard.cli.client.connection import post
from modelyard.cli.client.options import JsonOption, KeyFileOption, ModelArgument, ModelOption, UrlOption
from modelyard.cli.client.output import duration, memory, print_json
from modelyard.cli.messages import print_result
from modelyard.cli.model_names import one_model_name
from modelyard.system.quantities import count_text

# A model that was not loaded yet is looked up on the hub, which may take a while to answer.
_PLAN_S: Final = 120.0


def plan(
    name: ModelArgument = None,
    model: ModelOption = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a load of a model would do now: whether it fits, and what would be unloaded for it. Changes nothing."""
    wanted = one_model_name(name, model, command="plan")
    server = choose_server_of([wanted], url, key_file)
    model_id = server.model_id(wanted)
    found = post(server.address, "/v1/models/plan", {"model_id": model_id}, within_s=_PLAN_S)
    if as_json:
        print_json({**found, "model_id": model_id})
    else:
        print_result("\n".join(_lines(model_id, found)))


def _lines(model: str, found: Mapping[str, Any]) -> list[str]:
    needed, free, budget = (memory(found[f"{name}_bytes"]) or "0 B" for name in ("needed", "free", "budget"))
    evicts = found["evicts"]
    took = duration(found["load_seconds"])
    gone = count_text(len(evicts), "model")
    needs = f"{model} needs {needed}, and {free} of {budget} are free."
    sentence = {
        "loaded": f"{model} is loaded.",
        "loading": f"{model} is being loaded.",
        "fits": f"{needs} Its load takes about {took}.",
        "evicts": f"{needs} It would take the place of {gone} without requests. Its load takes about {took}.",
        "waits": f"{needs} It would wait for {gone} to make room, of which some have requests.",
        "never": f"{needs} It cannot be loaded: what is not free is pinned, or there is not enough in all.",
    }.get(found["outcome"], f"{model}: {found['outcome']}.")
    return [sentence, *(f"  {each['model_id']}: {memory(each['bytes']) or '0 B'}, {each['reason']}" for each in evicts)]
