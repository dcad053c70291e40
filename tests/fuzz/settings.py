"""Random settings within what the configuration's schema documents: they are refused in words, or they serve."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from fuzz.case import Ending, Fault, Place
from fuzz.damage import TEMPLATES
from fuzz.headers import TRIED, play_engine
from fuzz.prepare import prepare
from fuzz.tiny_models import cut_model
from modelyard.config.model import Device, Model, Sampling
from modelyard.config.schema import Memory, Runtime
from modelyard.errors import ConfigError, UnusableModel

_SIZES: Final = ("1KiB", "1MiB", "64MiB", "1GiB", "900GiB", 1, 4096, 10**9)
# Keys whose values are not told by the schema.
_SKIPPED: Final = frozenset({
    "chat_template", "kv_dir", "draft", "alias", "aliases", "model_id", "budget", "kv_keep_bytes", "device_layers",
    "load", "idle_unload_seconds", "trial", "dtype", "mcp", "mcp_config", "devices", "tensor_overrides", "tensor_split",
    "adapters", "remote", "remote_model", "remote_timeout_seconds", "api_key_env",
})  # fmt: skip
# Keys that need an accelerator: where there is none, most values are refused.
_OF_DEVICES: Final = frozenset({"n_gpu_layers", "n_cpu_moe", "split_mode", "main_gpu", "kv_on_host"})
# Values that are served on any machine, values that need an accelerator, and values that are refused.
_PLACES: Final[Mapping[str, tuple[Any, ...]]] = {
    "device_layers": (0, [], ["0:0"], 1, ["0:1"], ["0:2", "7:1"]),
    "devices": ([], ["CUDA0"], ["cpu"]),
    "tensor_overrides": ([], ["ffn_.*=host"], ["blk[.]1[.]=CPU", "output=host"], ["output=CUDA0"], ["(=host"]),
    "tensor_split": ([], [3, 1], [1], [0, 0]),
}
_MCP_SERVER: Final = {"name": "clock", "command": "true"}
# Whether the model is cut to what fits there is the machine's matter: a part of the lengths is short.
_SHORT: Final = 4096


def play_settings(seed: int, place: Place) -> Ending:
    """An engine with random settings, on a model of two layers."""
    rng = random.Random(f"settings {seed}")
    path = place.folder / "cut.gguf"
    if not path.exists():
        path.write_bytes(cut_model(place.weights).content())
    mapping = _mapping(rng, place)
    mapping["models"][0]["model_id"] = str(path)
    shown = str({**mapping, "models": [{k: v for k, v in mapping["models"][0].items() if k != "model_id"}]})
    try:
        prepared = prepare(mapping)
    except ConfigError as refusal:
        if len(str(refusal)) < 20:
            raise Fault(f"{shown}: refused without a reason: {refusal}") from refusal
        return Ending("refused")
    except UnusableModel:
        return Ending("does not fit")
    except Exception as failure:
        raise Fault(f"{shown}: {type(failure).__name__}: {failure}") from failure
    outcome = play_engine(prepared, seed, shown, tells=True)
    if outcome.startswith(TRIED):
        raise Fault(f"{shown}: a good model is {outcome}")
    return Ending(outcome)


def _mapping(rng: random.Random, place: Place) -> dict[str, Any]:
    model = _table(rng, Model, 0.15)
    model["device"] = _table(rng, Device, 0.5)
    if rng.random() < 0.7:
        model["device"] = {key: value for key, value in model["device"].items() if key not in _OF_DEVICES}
    if "max_seq_len" in model["device"] and rng.random() < 0.7:
        model["device"]["max_seq_len"] = rng.randint(1, _SHORT)
    model["device"] |= {key: rng.choice(values) for key, values in _PLACES.items() if rng.random() < 0.05}
    if rng.random() < 0.1:
        model["mcp"] = rng.choice(([], ["clock"], ["nobody"]))
    model["sampling"] = _table(rng, Sampling, 0.3)
    if rng.random() < 0.1:
        template = place.folder / "template.jinja"
        template.write_text(rng.choice(TEMPLATES), "utf-8", "replace")
        model["chat_template"] = str(template)
    runtime, memory = _table(rng, Runtime, 0.5), _table(rng, Memory, 0.3)
    if "batch_tokens" in runtime and rng.random() < 0.7:
        runtime["batch_tokens"] = rng.randint(32, 600)
    if rng.random() < 0.7:
        runtime["max_seqs"], runtime["prefix_cache_n"] = rng.randint(1, 32), rng.randint(0, 32)
    if rng.random() < 0.3:
        memory["kv_keep_bytes"] = rng.choice(_SIZES)
    memory["kv_dir"] = str(place.folder / "kv")
    models = [model]
    if rng.random() < 0.15:
        models.append({"model_id": str(place.folder / "cut.gguf"), "alias": "drafting"})
        model["alias"], model["draft"] = "served", "drafting"
    return {"runtime": runtime, "memory": memory, "models": models, "mcp": {"servers": [_MCP_SERVER]}}


def _table(rng: random.Random, table: type[BaseModel], share: float) -> dict[str, Any]:
    """Some keys of a table, with values that the schema allows."""
    schema = table.model_json_schema()
    return {
        key: value_of(rng, one)
        for key, one in schema["properties"].items()
        if key not in _SKIPPED and "$ref" not in one and rng.random() < share
    }


def value_of(rng: random.Random, schema: Mapping[str, Any]) -> Any:
    """A value that a JSON schema of the configuration allows, at its bounds as often as between them."""
    if "anyOf" in schema:
        return value_of(rng, rng.choice([one for one in schema["anyOf"] if one.get("type") != "null"]))
    if "enum" in schema:
        return rng.choice(schema["enum"])
    match schema.get("type"):
        case "boolean":
            return rng.random() < 0.5
        case "integer":
            low = int(schema.get("minimum", 0))
            high = int(schema.get("maximum", schema.get("exclusiveMaximum", 2**31) - 1))
            near = low + int((high - low + 1) ** rng.random())
            return rng.choice((low, high, low + 1, high - 1, min(near, high), min(near, high), rng.randint(low, high)))
        case "number":
            low = float(schema.get("minimum", schema.get("exclusiveMinimum", 0.0)))
            high = float(schema.get("maximum", 1e9))
            bounds = (high,) if "exclusiveMinimum" in schema else (low, high)
            return rng.choice((*bounds, low + 1e-9, (low + high) / 2, rng.uniform(low, high)))
    return "x"
