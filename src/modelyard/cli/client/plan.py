"""``modelyard plan``: what a load of a model would do, or the start of a server of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from modelyard.cli.client.choose import choose_server_of
from modelyard.cli.client.connection import post
from modelyard.cli.client.model_words import device_sizes, on_place
from modelyard.cli.client.options import JsonOption, KeyFileOption, ModelArgument, ModelOption, NodeOption, UrlOption
from modelyard.cli.client.output import duration, memory, print_json
from modelyard.cli.messages import print_result
from modelyard.cli.model_names import is_config, one_model_name, read_names
from modelyard.cli.options import ConfigOption
from modelyard.cli.usage import UsageError
from modelyard.system.quantities import count_text

# A model that was not loaded yet is looked up on the hub, which may take a while to answer.
_PLAN_S: Final = 120.0


def plan(
    name: ModelArgument = None,
    model: ModelOption = None,
    node: NodeOption = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    config: ConfigOption = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write what was chosen for max_seq_len and quant into the configuration.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a load of a model would do now: whether it fits, and what would be unloaded for it.

    Of a configuration, show what a server of it would load at its start: types, contexts, places and memory. Nothing is
    loaded, and nothing is changed without --write.
    """
    if config is not None or (name is not None and is_config(name)):
        named = read_names([name] if name else [], [model] if model else [], config, command="plan")
        if url is not None or key_file is not None or node is not None:
            raise UsageError("A configuration is planned without a server. Leave --url, --key-file and --node out.")
        from modelyard.cli.plan_file import plan_file

        assert named.config is not None
        plan_file(named.config, as_json=as_json, is_written=write)
        return
    if write:
        raise UsageError("--write is for a configuration. Write: modelyard plan -f models.toml --write")
    wanted = one_model_name(name, model, command="plan")
    server = choose_server_of([wanted], url, key_file)
    model_id = server.model_id(wanted)
    body = {"model_id": model_id} if node is None else {"model_id": model_id, "node": node}
    found = post(server.address, "/v1/models/plan", body, within_s=_PLAN_S)
    if as_json:
        print_json({**found, "model_id": model_id})
    else:
        print_result("\n".join(_lines(model_id, found)))


def _lines(model: str, found: Mapping[str, Any]) -> list[str]:
    evicts = found["evicts"]
    took = duration(found["load_seconds"])
    gone = count_text(len(evicts), "model")
    where = on_place(found.get("placement"))
    needs = _needs(model, found)
    sentence = {
        "loaded": f"{model} is loaded{where}.",
        "loading": f"{model} is being loaded{where}.",
        "fits": f"{needs} Its load{where} takes about {took}.",
        "evicts": f"{needs} It would take the place of {gone} without requests. Its load{where} takes about {took}.",
        "waits": f"{needs} It would wait for {gone} to make room, of which some have requests.",
        "never": f"{needs} It cannot be loaded: what is not free is pinned, or there is not enough in all.",
    }.get(found["outcome"], f"{model}: {found['outcome']}.")
    speed = found.get("tokens_per_second")
    return [
        sentence,
        *([f"That is on the node {found['node']}."] if found.get("node") else []),
        *([f"There it computes about {speed:,.3g} tokens of an answer in a second."] if speed else []),
        *(f"  {each['model_id']}: {_sizes(each)}, {each['reason']}" for each in evicts),
    ]


def _needs(model: str, found: Mapping[str, Any]) -> str:
    devices = found.get("devices") or {}
    if not devices:
        return f"{model} needs {_need(found)}."
    pools = [(name, pool) for name, pool in devices.items() if pool["needed_bytes"] > 0]
    parts = [f"{_need(pool)} on {name}" for name, pool in pools]
    return f"{model} needs {'; '.join((*parts, f'{_need(found)} on the host'))}."


def _need(pool: Mapping[str, Any]) -> str:
    needed, free, budget = (memory(pool[f"{name}_bytes"]) or "0 B" for name in ("needed", "free", "budget"))
    return f"{needed}, and {free} of {budget} are free"


def _sizes(evicted: Mapping[str, Any]) -> str:
    """Return what an eviction gives back."""
    of_devices = device_sizes(evicted.get("device_bytes"))
    of_host = memory(evicted["bytes"]) or "0 B"
    return f"{of_devices}, {of_host} of the host" if of_devices else of_host
