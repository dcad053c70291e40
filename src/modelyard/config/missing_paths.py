"""Finds the files and folders that a configuration names and that are not there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from shutil import which

from modelyard.config.hub import PATH_SOURCE
from modelyard.config.mcp import Mcp, McpServer
from modelyard.config.model import Model
from modelyard.config.schema import Config
from modelyard.config.tables import label
from modelyard.config.wording import shown
from modelyard.errors.configuration import ConfigProblem
from modelyard.system.typed_paths import exists, expanded, is_folder


def missing_paths(config: Config) -> list[ConfigProblem]:
    """Return one problem for each file or folder that is not there, of the server, all models and MCP servers."""
    return [*missing_models(config.models), *_of_models(config.models), *_of_server(config), *_of_mcp(config.mcp)]


def missing_models(models: Iterable[Model]) -> list[ConfigProblem]:
    """Return one problem for each model that names nothing, or a path that is not there."""
    problems = []
    for index, model in enumerate(models):
        reference = model.reference
        message, hint = "", "Check the spelling. A relative path starts at the folder of the configuration."
        if reference.kind == "unknown":
            message, hint = f"model_id: {reference.problem}", ""
        elif reference.kind == "path" and not exists(Path(reference.source)):
            message = f"model_id '{model.model_id}' does not exist: there is no {reference.source}."
        if message:
            where = label(("models",), index + 1, model.model_id)
            problems.append(ConfigProblem(message, hint, table=where, location=("models", index, "model_id")))
    return problems


def missing_ids(config: Config) -> frozenset[str]:
    """Return the ids of the models that name nothing, or a path that is not there."""
    return frozenset(model.id for model in config.models if missing_models([model]))


def _of_models(models: Iterable[Model]) -> Iterator[ConfigProblem]:
    for index, model in enumerate(models):
        path = model.quantization.imatrix
        if path is not None and not exists(path):
            where = label(("models", "quantization"), index + 1, model.model_id)
            location = ("models", index, "quantization", "imatrix")
            yield ConfigProblem(f"imatrix does not exist: there is no {path}.", table=where, location=location)


def _of_mcp(mcp: Mcp) -> Iterator[ConfigProblem]:
    # Without a location: servers of a JSON file are not in the TOML file.
    for server in mcp.servers:
        where = f"MCP server {shown(server.name)}"
        if server.cwd is not None and not is_folder(server.cwd):
            yield ConfigProblem(f"cwd does not exist: there is no folder {server.cwd}.", table=where)
        elif server.enabled and server.command is not None and which(server.command, path=_search_path(server)) is None:
            message = f"command {shown(server.command)} is not a program of this machine."
            yield ConfigProblem(message, "Install it, or write its whole path.", table=where)


def _search_path(server: McpServer) -> str | None:
    """Return the PATH on which the program of a server is looked for, where it has one of its own."""
    return next((value.get_secret_value() for name, value in server.env if name == "PATH"), None)


def _of_server(config: Config) -> Iterator[ConfigProblem]:
    server = config.server
    for key in ("ssl_certfile", "ssl_keyfile"):
        path = getattr(server, key)
        if path is not None and not exists(path):
            message = f"{key} does not exist: there is no {path}."
            yield ConfigProblem(message, table="[server]", location=("server", key))
    for key in ("image_folders", "audio_folders"):
        for index, path in enumerate(getattr(server, key)):
            if not is_folder(path):
                message = f"{key}: there is no folder {path}."
                yield ConfigProblem(message, table="[server]", location=("server", key, index))
    source = config.hub.token_source.get_secret_value()
    if source.startswith(PATH_SOURCE) and not exists(expanded(source.removeprefix(PATH_SOURCE))):
        message = f"token_source: there is no file {source.removeprefix(PATH_SOURCE)}."
        yield ConfigProblem(message, table="[hub]", location=("hub", "token_source"))
