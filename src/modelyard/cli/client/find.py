"""Finds the server that a command means: the one that is named, else those that run on this machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from modelyard.cli.client.address import DEFAULT_URL, InvalidOption, parse_url
from modelyard.cli.client.connection import ServerAddress
from modelyard.cli.client.server_state import server_state
from modelyard.errors import ModelNotFound, ModelyardError, ServerRefused, ServerUnreachable
from modelyard.system.announcements import announcements
from modelyard.system.typed_paths import exists, expanded

HOST_VARIABLE: Final = "MODELYARD_HOST"
KEY_VARIABLE: Final = "MODELYARD_API_KEY"
KEY_FILE_VARIABLE: Final = "MODELYARD_API_KEY_FILE"

# Seconds within which a server answers that `run` may use in place of loading the model itself. The default address may
# be another program's; a server that has announced itself is Modelyard, and worth more patience.
_NAMED_S: Final = 5.0
_ANNOUNCED_S: Final = 1.0
_DEFAULT_S: Final = 0.2

_MAX_KEY_BYTES: Final = 4096

_LATEST: Final = ":latest"

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def read_key(environ: Mapping[str, str], key_file: Path | None = None) -> str | None:
    """Return the API key for servers: of ``key_file``, else of the variables; None: there is none.

    Raises:
        InvalidOption: the file cannot be read, or does not hold a key.
    """
    if key_file is not None:
        return _key_of(key_file, "--key-file")
    if key := environ.get(KEY_VARIABLE, "").strip():
        return _checked_key(key, KEY_VARIABLE)
    if named := environ.get(KEY_FILE_VARIABLE, ""):
        return _key_of(Path(named), KEY_FILE_VARIABLE)
    return None


def configured_address(
    url: str | None, environ: Mapping[str, str], key_file: Path | None = None
) -> ServerAddress | None:
    """Return the server that ``url``, of --url, or MODELYARD_HOST names; None where neither does.

    Raises:
        InvalidOption: what they hold is no address, or the key cannot be read.
    """
    for text, source in ((url, "--url"), (environ.get(HOST_VARIABLE) or None, HOST_VARIABLE)):
        if text is not None:
            return ServerAddress(parse_url(text, source), read_key(environ, key_file), source)
    return None


def running_servers(environ: Mapping[str, str], key_file: Path | None = None) -> list[ServerAddress]:
    """Return the user's own servers that run on this machine, the newest first.

    Raises:
        InvalidOption: the key cannot be read.
    """
    key = read_key(environ, key_file)
    return [ServerAddress(each.url, key, "announced", each) for each in announcements(environ)]


def candidates(url: str | None, environ: Mapping[str, str], key_file: Path | None = None) -> list[ServerAddress]:
    """Return the servers that a command may mean: the named one alone, else the running ones, else the default address.

    Raises:
        InvalidOption: an address is invalid, or the key cannot be read.
    """
    named = configured_address(url, environ, key_file)
    if named is not None:
        # A server of this machine is known even if it is named: its process, and its certificate.
        own = [each for each in announcements(environ) if _is_same_place(each.url, named.url)]
        return [replace(named, announcement=own[0] if own else None)]
    running = running_servers(environ, key_file)
    return running or [ServerAddress(DEFAULT_URL, read_key(environ, key_file))]


def _is_same_place(url: str, other: str) -> bool:
    """Whether two URLs are one server: they are equal, or differ in the name of this machine's loopback address."""
    parts, others = urlsplit(url), urlsplit(other)
    if not {parts.hostname, others.hostname} <= _LOOPBACK:
        return url == other
    return (parts.scheme, parts.port, parts.path) == (others.scheme, others.port, others.path)


def server_with_model(
    model: str | None, url: str | None, environ: Mapping[str, str], key_file: Path | None = None
) -> ServerAddress | None:
    """Return a server that has ``model``, with the id of the model there; None: none has it.

    Servers are asked at the same time. One that is not named is waited for a second at most, and the default address
    0.2 s.

    Args:
        model: id, alias, hub id or path of the model, alone or with adapters; None: any server that has models will do.
        url: of --url.
        environ: the environment.
        key_file: of --key-file.

    Raises:
        InvalidOption: an address is invalid, or the key cannot be read.
        ModelNotFound: the server that ``url`` names does not have the model; or no server has it, and ``model`` can
            be nothing but the id of a model there.
        ServerUnreachable, NotModelyard, ServerRefused: the server that is named, by ``url`` or by
            MODELYARD_HOST, cannot be used; or no other one has the model, and one that is starting may have it.
    """
    servers = candidates(url, environ, key_file)
    known: list[str] = []
    starting: ServerUnreachable | None = None
    for server, answer in asked(servers):
        is_named = server.source in ("--url", HOST_VARIABLE)
        if isinstance(answer, ServerRefused) and answer.server_code == "permission_denied" and is_named and model:
            # A key that may only send requests does not see the models.
            return replace(server, model=model)
        if isinstance(answer, ModelyardError):
            if is_named:
                raise answer
            if isinstance(answer, ServerUnreachable) and server.is_starting:
                starting = answer
            continue
        found = _answering_in(answer["models"], model)
        if found is not None:
            return replace(server, model=found)
        if model is not None and server.source == "--url":
            raise ModelNotFound(model, tuple(each["id"] for each in answer["models"]))
        known += [each["id"] for each in answer["models"]]
    if starting is not None and (model is None or problem_of(model)):
        raise starting
    if model is not None and known and (problem := problem_of(model)):
        unknown = ModelNotFound(model, tuple(dict.fromkeys(known)))
        unknown.add_note(f"To load another one here: {problem}")
        raise unknown
    return None


def problem_of(model: str) -> str:
    """Return why ``model`` is no path, repository or model of Ollama, so that only a server can know it; "": it is."""
    from modelyard.config.model_reference import parse_model_reference

    return parse_model_reference(model).problem


def server_of_file(
    file: Path, model: str, environ: Mapping[str, str], key_file: Path | None = None
) -> ServerAddress | None:
    """Return the user's server that runs with a configuration file and has ``model``, with the model's id there.

    Args:
        file: the configuration.
        model: id of a model in it, alone or with adapters; a server that has not read the file again may not have it.
        environ: the environment.
        key_file: of --key-file.

    Raises:
        InvalidOption: the key cannot be read.
    """
    real = os.path.realpath(file)
    servers = [
        server
        for server in running_servers(environ, key_file)
        if server.announcement is not None
        and server.announcement.config is not None
        and os.path.realpath(server.announcement.config) == real
    ]
    for server, answer in asked(servers):
        if not isinstance(answer, ModelyardError) and (found := _answering_in(answer["models"], model)) is not None:
            return replace(server, model=found)
    return None


def model_in(models: Sequence[Mapping[str, Any]], wanted: str | None) -> str | None:
    """Return the id of the model of ``GET /v1/server`` that ``wanted`` means; None: there is none.

    It means a model by id or alias, by the path of its file or folder, or by its id on the hub, with the quantisation
    behind a colon if it names one; the tag "latest", which clients of Ollama append, stands for none. Without
    ``wanted``, it is the default model, else the first.
    """
    if wanted is None:
        defaults = [model["id"] for model in models if model.get("default")]
        return next(iter([*defaults, *(model["id"] for model in models)]), None)
    named = _named(models, wanted)
    if named is None and wanted.endswith(_LATEST):
        named = _named(models, wanted.removesuffix(_LATEST))
    return named


def _answering_in(models: Sequence[Mapping[str, Any]], wanted: str | None) -> str | None:
    """Return the name of the model that answers for ``wanted``: as ``model_in``, or its id with adapters."""
    found = model_in(models, wanted)
    if found is not None or wanted is None:
        return found
    from modelyard.config.adapter import SEPARATOR, TOGETHER

    base, separator, names = wanted.rpartition(SEPARATOR)
    found = model_in(models, base) if separator else None
    known = {each["name"] for model in models if model["id"] == found for each in model.get("adapters", ())}
    return f"{found}{SEPARATOR}{names}" if known.issuperset(names.split(TOGETHER)) else None


def _named(models: Sequence[Mapping[str, Any]], wanted: str) -> str | None:
    for model in models:
        if wanted == model["id"] or wanted in model.get("aliases", ()):
            return str(model["id"])
    path = expanded(wanted)
    real = os.path.realpath(path) if exists(path) else None
    for model in models:
        source = model.get("source")
        if source is None:
            continue
        tagged = f"{source}:{model.get('quantization') or ''}".casefold()
        if wanted == source or wanted.casefold() == tagged or (real is not None and real == os.path.realpath(source)):
            return str(model["id"])
    return None


def asked(
    servers: Sequence[ServerAddress], *, within_s: float = _NAMED_S
) -> list[tuple[ServerAddress, dict[str, Any] | ModelyardError]]:
    """Return each server with its description, or with the error that asking it has raised.

    Args:
        servers: the servers, which are asked at the same time.
        within_s: seconds that a server has at most; one that is not named has less.
    """
    answers: list[dict[str, Any] | ModelyardError | None] = [None] * len(servers)

    def patience_s(server: ServerAddress) -> float:
        return min(within_s, _patience_s(server))

    def ask(number: int) -> None:
        try:
            answers[number] = server_state(servers[number], within_s=patience_s(servers[number]))
        except ModelyardError as error:
            answers[number] = error

    # Daemons: a server that answers a byte at a time would hold the command up.
    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(len(servers))]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    asked: list[tuple[ServerAddress, dict[str, Any] | ModelyardError]] = []
    for number, (server, thread) in enumerate(zip(servers, threads, strict=True)):
        thread.join(max(0.0, began + patience_s(server) - time.monotonic()))
        late = ServerUnreachable(server.url, "it does not answer in time", "It is overloaded or hangs.")
        asked.append((server, answers[number] or late))
    return asked


def _patience_s(server: ServerAddress) -> float:
    return {"announced": _ANNOUNCED_S, "default": _DEFAULT_S}.get(server.source, _NAMED_S)


def _key_of(path: Path, source: str) -> str:
    try:
        with expanded(path).open("rb") as file:
            content = file.read(_MAX_KEY_BYTES + 1)
    except OSError as error:
        why = error.strerror or str(error)
        raise InvalidOption(source, [f"{path} cannot be read: {why.lower()}"]) from error
    return _checked_key(content.decode("utf-8", "replace").strip(), source)


def _checked_key(key: str, source: str) -> str:
    # The key itself is never repeated.
    if not key or len(key) > _MAX_KEY_BYTES or not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidOption(source, ["It does not hold an API key: one line of letters, digits and signs."])
    return key
