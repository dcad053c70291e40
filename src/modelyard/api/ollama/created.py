"""Turns what ``POST /api/create`` asks for into keys of a ``[[models]]`` table. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modelyard.api.ollama.modelfile import Modelfile
from modelyard.api.ollama.schema import LOADING_OPTIONS, CreateRequest
from modelyard.errors import InvalidRequest, UnsupportedOperation
from modelyard.hub.sources.adapter_uploads import check_adapter_names
from modelyard.hub.sources.ollama_parameters import SAMPLING, context_length, sampling_keys

# Parameters that Ollama's library sets in many models, and that requests set here.
_OF_REQUESTS: Final = frozenset(
    {"stop", "num_predict", "num_keep", "repeat_last_n", "typical_p", "mirostat", "mirostat_eta", "mirostat_tau"}
    | {"penalize_newline", "tfs_z", "draft_num_predict"}
)
_GO: Final = re.compile(r"\{\{-?\s*(?:\.|\$|if\b|range\b|end\b|else\b|define\b|template\b|with\b|block\b|/\*)")
_SYNTAX: Final = re.compile(r"\{\{|\{%")


@dataclass(frozen=True, slots=True)
class Creation:
    """What a new model is made of.

    Attributes:
        base: name of the model that it begins with; "" where it is made of files.
        files: digests by names of files.
        adapters: those of its adapters.
        changes: keys of its ``[[models]]`` table.
        template: its chat template, in Jinja; "": the base's.
        ignored: what was given and has no effect, by the names of its fields.
    """

    base: str
    files: Mapping[str, str]
    adapters: Mapping[str, str]
    changes: Mapping[str, Any]
    template: str
    ignored: tuple[str, ...]


def creation_of(body: CreateRequest, modelfile: Modelfile | None) -> Creation:
    """Return what a request, or the Modelfile in it, asks for; the request's own fields count before the Modelfile's.

    Raises:
        InvalidRequest: a field contradicts another, or a parameter is unknown or has no number.
        UnsupportedOperation: it asks for what a model of this server cannot have; the message names the way out.
    """
    file = modelfile or Modelfile()
    if file.adapter:
        raise UnsupportedOperation(
            "ADAPTER names a file of the client. Send it: POST /api/blobs/{digest}, and its digest in adapters, as "
            "Ollama's own command does.",
            "adapters",
        )
    adapters = body.adapters or {}
    check_adapter_names(adapters)
    if body.messages or file.messages:
        raise UnsupportedOperation(
            "MESSAGE: a model has no conversation of its own. Send the messages with each request, or put them into "
            "SYSTEM.",
            "messages",
        )
    if body.quantize:
        raise UnsupportedOperation(
            "quantize: a model is created with the weights of its base. Quantise them with `modelyard quantize`, or "
            "set `isq` in a configuration.",
            "quantize",
        )
    base = body.from_ or file.base
    if bool(base) == bool(body.files):
        raise InvalidRequest("Name either a model to begin with (from, FROM), or files.", "from")
    template = body.template or file.template
    if template and (_GO.search(template) or not _SYNTAX.search(template)):
        raise UnsupportedOperation(
            "TEMPLATE is in Ollama's template language; this server renders Jinja. Leave it out to use the template of "
            "the model's file, or write it in Jinja.",
            "template",
        )
    parameters = {**_read(file.parameters), **(body.parameters or {})}
    unknown = [
        name
        for name in parameters
        if name not in SAMPLING and name not in _OF_REQUESTS and name not in LOADING_OPTIONS and name != "num_ctx"
    ]
    if unknown:
        raise InvalidRequest(f"'{unknown[0]}' is not a parameter of a model.", f"parameters.{unknown[0]}")
    changes: dict[str, Any] = {}
    if sampling := sampling_keys(parameters):
        changes["sampling"] = sampling
    if (context := context_length(parameters)) is not None:
        changes["device"] = {"max_seq_len": context}
    if system := body.system or file.system:
        changes["system"] = system
    ignored = [f"parameters.{name}" for name in parameters if name not in SAMPLING and name != "num_ctx"]
    if body.license or file.licenses:
        ignored.append("license")
    return Creation(base, body.files or {}, adapters, changes, template, tuple(ignored))


def _read(parameters: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the parameters of a Modelfile with their numbers read."""
    return {
        name: _number(name, values[-1]) if name in (*SAMPLING, "num_ctx") else values
        for name, values in parameters.items()
    }


def _number(name: str, text: str) -> int | float:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    raise InvalidRequest(f"PARAMETER {name} takes a number, not '{text[:100]}'.", f"parameters.{name}")
