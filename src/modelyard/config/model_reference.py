"""Parses what a person writes for a model: a path, a repository of the Hugging Face Hub, or a model of Ollama.

The command line, ``model_id`` of a TOML file and the builders of the Python API all use ``parse_model_reference``, so
that the same text means the same model, under the same id, everywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

from modelyard.config.paths import absolute
from modelyard.system.typed_paths import exists

DEFAULT_TAG: Final = "latest"
"""The tag that stands for the default, as Ollama has it: ``org/name:latest`` is ``org/name``."""

_PATH_STARTS: Final = ("/", "./", "../", "~")
_WEIGHT_SUFFIXES: Final = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".uqff", ".ggml")
_REPOSITORY_FILES: Final = (".gguf", ".uqff")

_HUB_HOSTS: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_OLLAMA_HOSTS: Final = frozenset({"ollama.com", "www.ollama.com", "registry.ollama.ai"})
_HUB_SCHEME: Final = re.compile(r"hf:(?://)?", re.IGNORECASE)
_OLLAMA_SCHEME: Final = re.compile(r"ollama:(?://)?", re.IGNORECASE)
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_REPOSITORY: Final = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?P<tag>[\w.+-]+))?", re.ASCII
)
_OLLAMA_NAME: Final = re.compile(r"(?:[\w.-]+/){0,3}[\w.-]+(?::(?P<tag>[\w.-]+))?", re.ASCII)
_MAX_SHOWN_LENGTH: Final = 200
_SHARD: Final = re.compile(r"(?P<stem>.+)-\d{5}-of-\d{5}", re.DOTALL)
_SNAPSHOT: Final = re.compile(r"models--(?P<repo>[^/\\]+)[/\\]snapshots[/\\][^/\\]+")


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A model, as it was named.

    Attributes:
        kind: "path", "hub" for a repository of the Hugging Face Hub, "ollama" for a model in Ollama's store on this
            machine, "remote" for a model that other servers have, or "unknown".
        source: where the model is: an absolute path, ``org/name[@revision]``, ``ollama:name:tag``, or addresses of
            servers; the text itself for "unknown".
        id: the id under which the model is listed, unless it has an alias: the stem of a file, the name of a folder,
            ``org/name`` with its tag, or Ollama's name.
        quant: the quantisation that a tag names, in small letters; None: none is named.
        file: the file of the repository; None: none is named.
        problem: for "unknown", why the text is no reference, in a sentence that says what to do.
    """

    kind: Literal["path", "hub", "ollama", "remote", "unknown"]
    source: str
    id: str
    quant: str | None = None
    file: str | None = None
    problem: str = ""


def parse_model_reference(
    text: str, base: Path | None = None, is_there: Callable[[Path], bool] = exists
) -> ModelReference:
    """Return the model that ``text`` names. Never raises: a text that names none gives a reference with a ``problem``.

    The forms are: a path (what begins with / ./ ../ or ~, ends like a file of weights, or exists), ``file://``;
    ``org/name[@revision][:tag]``, also after ``hf.co/``, ``huggingface.co/``, ``hf:`` and ``hf://``, and URLs of the
    hub with ``/tree/REVISION`` or ``/blob/REVISION/FILE.gguf``; and ``ollama:name[:tag]``.

    Args:
        text: what was written.
        base: where relative paths start; None: the working directory.
        is_there: whether a path exists.
    """
    written, base = text.strip(), (base or Path()).absolute()
    if not written or "\0" in written:
        return _unknown(text, f"{text!r} is not a model. Name a GGUF file, a folder or a hub id (org/name).")
    if match := _HUB_SCHEME.match(written):
        return _of_hub_path(written, written[match.end() :])
    if match := _OLLAMA_SCHEME.match(written):
        return _of_ollama(written, written[match.end() :])
    if written.lower().startswith("file://"):
        return _of_file_url(written, base)
    if _URL.match(written):
        return _of_url(written)
    path = absolute(written, base)
    looks_like_path = (
        written in (".", "..")
        or Path(written).is_absolute()
        or written.startswith(_PATH_STARTS)
        or (_is_hostless(written) and written.lower().endswith(_WEIGHT_SUFFIXES))
    )
    if looks_like_path:
        return _of_path(path)
    if is_there(path):
        of_path = _of_path(path)
        # A folder that is named as a repository of the hub is known by that name: it may stand in for the download.
        repository = _REPOSITORY.fullmatch(written)
        return replace(of_path, id=written) if repository and repository["repo"] == written else of_path
    if not _is_hostless(written):
        return _of_url(f"https://{written}")
    return _of_repository(written, written)


def path_id(path: Path) -> str:
    """Return the id of the model at ``path``: its file's stem, without the number of a shard, or its folder's name.

    A snapshot in the hub's cache is named by its repository. Characters that do not print become "_": nobody could
    type them, and they would drive a terminal that shows the id.
    """
    return "".join(character if character.isprintable() else "_" for character in _name_of(path))


def _name_of(path: Path) -> str:
    normal = Path(os.path.normpath(path))
    if (match := _SNAPSHOT.search(str(normal))) and match.end() == len(str(normal)):
        return match["repo"].replace("--", "/", 1)
    name = normal.name
    suffix = next((suffix for suffix in _WEIGHT_SUFFIXES if name.lower().endswith(suffix)), "")
    stem = name[: len(name) - len(suffix)] if suffix else name
    shard = _SHARD.fullmatch(stem) if suffix else None
    return (shard["stem"] if shard else stem) or str(normal)


def unique_ids(references: Sequence[ModelReference], taken: Collection[str] = ()) -> list[str]:
    """Return an id for each reference, all different where their sources are.

    The first of several models with one id keeps it. Later ones get the name of their folder before it, or a number
    after it: ``b/model``, ``model-2``.

    Args:
        references: the models, in their order.
        taken: names that belong to other models.
    """
    sources: dict[str, str] = {}
    ids: list[str] = []
    for reference in references:
        name = next(
            name
            for name in _candidates(reference)
            if name not in taken and sources.get(name, reference.source) == reference.source
        )
        sources[name] = reference.source
        ids.append(name)
    return ids


def _candidates(reference: ModelReference) -> Iterator[str]:
    yield reference.id
    if reference.kind == "path":
        yield f"{Path(reference.source).parent.name}/{reference.id}"
    elif reference.file is not None:
        yield f"{reference.source}/{reference.id}"
    for number in count(2):
        yield f"{reference.id}-{number}"


def _is_hostless(text: str) -> bool:
    return text.partition("/")[0].lower() not in _HUB_HOSTS | _OLLAMA_HOSTS


def _of_path(path: Path) -> ModelReference:
    return ModelReference("path", str(path), path_id(path))


def _of_file_url(text: str, base: Path) -> ModelReference:
    """Source: RFC 8089, The "file" URI Scheme."""
    rest = text[len("file://") :]
    host, slash, path = rest.partition("/")
    if host.lower() in ("", "localhost"):
        return _of_path(absolute(unquote(slash + path), base))
    if host in (".", "..", "~"):  # not in the RFC, but what people write
        return _of_path(absolute(unquote(rest), base))
    return _unknown(text, f"'{text}' names a file of the machine '{host}'. Name one of this machine: file:///path.")


def _of_url(text: str) -> ModelReference:
    try:
        url = urlsplit(text)
        host = (url.hostname or "").lower()
    except ValueError:  # such as https://[name: no IP address
        url, host = urlsplit(""), ""
    if url.scheme.lower() in ("http", "https") and host in _HUB_HOSTS:
        return _of_hub_path(text, url.path.strip("/"))
    if url.scheme.lower() in ("http", "https") and host in _OLLAMA_HOSTS:
        return _of_ollama(text, url.path.strip("/").removeprefix("library/"))
    return _unknown(
        text,
        f"'{text}' is not an address of the Hugging Face Hub. Download the file, and name its path; or write org/name.",
    )


def _of_hub_path(text: str, path: str) -> ModelReference:
    """Parse what follows the host: ``org/name[@revision][:tag]``, ``…/tree/REVISION`` or ``…/blob/REVISION/FILE``.

    Source: Hugging Face, docs/huggingface_hub/guides/hf_file_system for ``hf://org/name@revision/file``.
    """
    parts = [unquote(part) for part in path.split("/") if part]
    if parts and parts[0] in ("datasets", "spaces", "collections", "papers"):
        return _unknown(text, f"'{text}' is not a model of the hub, but one of its {parts[0]}. Name a model: org/name.")
    parts = parts[1:] if parts and parts[0] == "models" else parts
    repository, rest = "/".join(parts[:2]), parts[2:]
    if not rest:
        return _of_repository(text, repository)
    if rest[0] in ("tree", "blob", "resolve", "raw") and len(rest) > 1 and ":" not in repository:
        # A revision of a pull request has slashes: refs/pr/1.
        length = 3 if rest[1] == "refs" and len(rest) > 3 else 1
        revision, names = "/".join(rest[1 : 1 + length]), rest[1 + length :]
        repository = repository if revision == "main" else f"{repository}@{revision}"
        return _of_repository(text, repository, "/".join(names))
    if rest[0] in ("tree", "main", "discussions", "commits"):
        return _of_repository(text, repository)
    return _of_repository(text, repository, "/".join(rest))


def _of_repository(text: str, repository: str, file: str = "") -> ModelReference:
    match = _REPOSITORY.fullmatch(repository)
    if match is None or ".." in repository:
        return _unknown(text, _no_repository(text))
    repo, revision, tag = match["repo"], match["revision"], match["tag"]
    source = repo if revision in (None, "main") else f"{repo}@{revision}"
    if tag is not None and tag.lower().endswith(_REPOSITORY_FILES):
        file, tag = tag, None
    if file.lower().endswith(_REPOSITORY_FILES):
        return ModelReference("hub", source, path_id(Path(file)), file=file)
    if file and not file.lower().endswith((".safetensors", ".json", ".md")):
        return _unknown(
            text, f"'{text}' names '{file}', which is not a GGUF file. Name one, or the repository '{repo}'."
        )
    if tag is None or tag.lower() == DEFAULT_TAG:
        return ModelReference("hub", source, source)
    return ModelReference("hub", source, f"{source}:{tag}", quant=tag.lower())


def _of_ollama(text: str, name: str) -> ModelReference:
    match = _OLLAMA_NAME.fullmatch(name)
    if match is None or ".." in name:
        return _unknown(text, f"'{text}' is not a name of Ollama. Write ollama:name or ollama:name:tag.")
    tag = match["tag"] or DEFAULT_TAG
    base = name[: match.start("tag") - 1] if match["tag"] else name
    return ModelReference("ollama", f"ollama:{base}:{tag}", base if tag == DEFAULT_TAG else f"{base}:{tag}")


def _no_repository(text: str) -> str:
    shown = text if len(text) <= _MAX_SHOWN_LENGTH else f"{text[:_MAX_SHOWN_LENGTH]}…"
    problem = (
        f"'{shown}' is neither a path that exists nor a hub id (org/name). Check the spelling; start a relative path "
        "with './'."
    )
    if _OLLAMA_NAME.fullmatch(text) and "/" not in text:
        return f"{problem} A model that Ollama has downloaded to this machine is 'ollama:{text}'."
    return problem


def _unknown(text: str, problem: str) -> ModelReference:
    return ModelReference("unknown", text, text, problem=problem)
