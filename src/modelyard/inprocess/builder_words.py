"""Words the problems of a configuration for its builder: with calls and arguments in place of tables and keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from modelyard.errors import ConfigError
from modelyard.errors.configuration import ConfigProblem, Location

METHODS: Final[Mapping[str, str]] = {
    "aliases": "with_aliases",
    "budget": "with_memory_budget",
    "chat_template": "with_chat_template",
    "cpu": "with_force_cpu",
    "default_model_id": "with_default_model",
    "device_layers": "with_device_layers",
    "devices": "with_devices",
    "draft": "with_draft",
    "dtype": "with_dtype",
    "from_uqff": "with_uqff",
    "idle_unload_seconds": "with_idle_unload_seconds",
    "imatrix": "with_imatrix",
    "isq": "with_isq",
    "kv_on_host": "with_kv_on_host",
    "load": "with_load",
    "main_gpu": "with_split",
    "max_audio_seconds": "with_max_audio_seconds",
    "max_batch_size": "with_max_num_seqs",
    "max_edge": "with_max_edge",
    "max_seq_len": "with_max_seq_len",
    "max_tool_rounds": "with_max_tool_rounds",
    "mlock": "with_mlock",
    "mmap": "with_mmap",
    "mmproj": "with_mmproj",
    "n_cpu_moe": "with_experts_on_host",
    "n_gpu_layers": "with_gpu_layers",
    "pinned": "with_pinned",
    "priority": "with_priority",
    "quant": "with_quant",
    "split_mode": "with_split",
    "tensor_overrides": "with_tensor_overrides",
    "tensor_split": "with_split",
    "token_source": "with_token_source",
}
"""Key of the configuration -> the method of a builder that sets it."""

_TABLES: Final[Mapping[str, str]] = {"sampling": "with_sampling", "runtime": "with_runtime"}
"""Table of the configuration -> the method that takes its keys as keywords."""

_ARGUMENTS: Final[Mapping[str, str]] = {"quantized_file": "files", "alias": "the alias"}

_WITHOUT_ARGUMENT: Final = frozenset({"cpu", "kv_on_host", "mlock", "pinned"})

# Keys that are also words of the messages: they stand for the key only where a problem is about it.
_WORDS: Final = frozenset(
    {"aliases", "budget", "cpu", "devices", "draft", "load", "mlock", "mmap", "pinned", "priority"}
)

_BUILDERS: Final = {
    "text": "TextModelBuilder",
    "multimodal": "MultimodalModelBuilder",
    "embedding": "EmbeddingModelBuilder",
}

_MODEL: Final = re.compile(r"\[\[?models(?:\.\w+)?\]\]?(?: of model)? (\d+ \('[^']*'\))")
_SERVER: Final = re.compile(r"\[\[mcp\.servers\]\] (?:\d+ \()?('[^']*'|\d+)")
_TABLE: Final = re.compile(r" (?:in|under|of) \[+[\w.]+\]+")
_KIND: Final = re.compile(r"\b[Ss]et kind = '(text|multimodal|embedding)'")
_BARE: Final = re.compile(r"(?<![\w/.'\"(-])(\w+)(?: = | )?('[^']*'|true\b)?(?![\w/'\"(-]|\.\w)")


@contextmanager
def worded_for_builder(*, several: bool) -> Iterator[None]:
    """Turn the problems of a configuration that a builder describes into problems with its calls and arguments.

    Args:
        several: whether the builder has several models, so that a problem names its model.

    Raises:
        ConfigError: something within the context raised one, which has the same class.
    """
    try:
        yield
    except ConfigError as error:
        problems = [worded(problem, several=several) for problem in error.problems]
        raise type(error)(error.source, problems, error.path) from error


def worded(problem: ConfigProblem, *, several: bool) -> ConfigProblem:
    """Return a problem in the words of a builder."""
    if problem.is_key:
        return _unknown_argument(problem)
    named = {key: call for at in (problem.location, *problem.related) for key, call in _calls(at)}
    message, hint = (_with_calls(text, named) for text in (problem.message, problem.hint))
    place = _server(problem)
    if several and (model := _MODEL.match(problem.table)):
        place = f"model {model[1]}"
    return replace(problem, message=message, hint=hint, table=place)


def _server(problem: ConfigProblem) -> str:
    """Return the MCP server that a problem is about, by its name or, without one, its number; "" if it is none."""
    server = _SERVER.match(problem.table)
    return f"MCP server {server[1]}" if server else ""


def _calls(location: Location) -> Iterator[tuple[str, str]]:
    """Yield the key at a location, and the method that sets it, with its keyword if it has several."""
    *tables, key = location or ("",)
    if isinstance(key, int) and tables:
        *tables, key = tables
    table = str(tables[-1]) if tables else ""
    if tables == ["memory", "devices"]:
        yield "devices", "with_device_budget(...)"
    elif table in _TABLES:
        yield str(key), f"{_TABLES[table]}({key}=...)"
    elif key in METHODS:
        yield str(key), f"{METHODS[str(key)]}({'' if key in _WITHOUT_ARGUMENT else '...'})"
    elif key in _ARGUMENTS:
        yield str(key), _ARGUMENTS[str(key)]


def _unknown_argument(problem: ConfigProblem) -> ConfigProblem:
    """Return the problem of a keyword that a method does not have."""
    *tables, key = problem.location
    method = _server(problem) or _TABLES.get(str(tables[-1]) if tables else "", "The builder")
    own = METHODS.get(str(key))
    hint = f"Use {own}." if own else "" if "[" in problem.hint else problem.hint
    return replace(problem, message=f"{method} takes no '{key}'.", hint=hint, table="")


def _with_calls(text: str, named: Mapping[str, str]) -> str:
    """Return a text with calls in place of keys.

    Args:
        text: of the configuration.
        named: the keys that the problem is about, with their calls.
    """
    text = _MODEL.sub(r"model \1", text)
    text = text.replace("more than one of [[mcp.servers]]", "more than one MCP server")
    text = _TABLE.sub("", text)
    text = _KIND.sub(lambda match: f"use {_BUILDERS[match[1]]}", text)
    text = text.replace("text in quotes", "text").replace("a path in quotes", "a path")
    text = text.replace("Give each an alias of its own.", "Add them with add_model_with_alias.")
    text = text.replace("the folder of the configuration", "the working directory")
    text = _BARE.sub(lambda match: _call(match, named), text)
    return re.sub(r"(\bwith_\w+)\(\.\.\.\) must be (?!the same|at )", r"\1 takes ", text)


def _call(match: re.Match[str], named: Mapping[str, str]) -> str:
    key, value = match[1], match[2]
    call = named.get(key)
    if call is None and key in METHODS and key not in _WORDS:
        call = f"{METHODS[key]}(...)"
    if call is None:
        return match[0]
    if value is None or "(" not in call:
        return match[0].replace(key, call, 1)
    return call.replace("...", value)
