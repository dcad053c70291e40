"""From what a configuration names to the files of one model on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.hub.choose import PREFERENCES, Choice, Shard, choose_gguf, expand_shards, parse_quant
from modelyard.hub.folder import list_files
from modelyard.hub.gguf_header import GgufHeader, read_header
from modelyard.hub.hub_cache import HubId, cached_snapshot
from modelyard.hub.labels import bits, label_in, normalise

_PATH_STARTS: Final = ("/", "./", "../", "~")
_WEIGHT_SUFFIXES: Final = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".uqff", ".ggml")
_SERVED_KINDS: Final = ("auto", "text")
_LATER_KINDS: Final = ("embedding", "multimodal")
_ROLES: Final = {
    "mmproj": "a projector (it turns pictures or sound into embeddings)",
    "adapter": "an adapter (LoRA)",
    "imatrix": "an importance matrix",
}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of one model, checked.

    Attributes:
        paths: absolute; the shards in order, or the single file. Links of the cache are kept as links.
        header: of the first file.
        size_bytes: of all files.
        reason: which file, and why, in one sentence.
        quantization: the type of the weights, such as "Q4_K_M".
    """

    paths: tuple[Path, ...]
    header: GgufHeader
    size_bytes: int
    reason: str
    quantization: str


def resolve(
    source: str,
    *,
    quant: str | None,
    isq: str | None,
    from_uqff: str | None,
    kind: str,
    hub_cache: Path | None = None,
) -> ModelFiles:
    """The files that ``source`` means, with every header read and checked.

    Args:
        source: a GGUF file, a folder with one, or a hub id ``org/name[@revision]`` that is in the local cache. What
            starts with / ./ ../ ~ or ends like a weight file is a path; so is anything that exists.
        quant: which of several files: bits ("4") or a type ("q4_k_m"). A file named directly is checked against it.
        isq, from_uqff: refused: in this version weights are served as they were published.
        kind: what the model is served as; "auto" and "text" are.
        hub_cache: the folder of the Hugging Face cache; None: where huggingface_hub has it.

    Raises:
        UnusableModel: with what is wrong and what to do.
    """
    _check_request(isq, from_uqff, kind)
    if quant is not None:
        parse_quant(quant)
    path = _as_path(source)
    if path is None:
        hub_id = HubId.parse(source)
        if hub_id is None:
            raise UnusableModel(
                f"'{source}' is neither a path that exists nor a hub id (org/name). Check the spelling; "
                "start a relative path with './'."
            )
        snapshot = cached_snapshot(hub_id, hub_cache)
        return _from_folder(snapshot, source, quant)
    if path.is_dir():
        return _from_folder(path, source, quant)
    return _from_file(path, quant)


def _check_request(isq: str | None, from_uqff: str | None, kind: str) -> None:
    if isq is not None:
        raise UnusableModel(
            f"isq = '{isq}' is not available in this version. "
            "Name a GGUF file that is quantised already, or choose one of a folder with quant."
        )
    if from_uqff is not None:
        raise UnusableModel(
            f"from_uqff = '{from_uqff}' is not available in this version: UQFF cannot be read. "
            "Use a GGUF file of the model."
        )
    if kind in _LATER_KINDS:
        raise UnusableModel(f"kind = '{kind}' is not available in this version. Only text models are served.")
    if kind not in _SERVED_KINDS:
        raise UnusableModel(f"kind = '{kind}' is not supported. Only text models are served: write 'text' or 'auto'.")


def _as_path(source: str) -> Path | None:
    """The path that ``source`` is; None where it can only be a hub id."""
    if not source.strip() or "\0" in source:
        raise UnusableModel(f"{source!r} is not a model. Name a GGUF file, a folder or a hub id (org/name).")
    try:
        path = Path(source).expanduser().absolute()
        exists = path.exists()
    except (OSError, RuntimeError) as error:  # RuntimeError: the user of ~user is not known
        raise UnusableModel(f"'{source}' cannot be looked up: {error}. Check the path.") from error
    if exists:
        return path
    if source in (".", "..") or source.startswith(_PATH_STARTS) or source.lower().endswith(_WEIGHT_SUFFIXES):
        raise UnusableModel(f"The path '{source}' does not exist (looked for {path}). Check the spelling.")
    return None


def _from_folder(folder: Path, source: str, quant: str | None) -> ModelFiles:
    names = list_files(folder)
    if not any(name.lower().endswith(".gguf") for name in names):
        raise UnusableModel(_nothing_to_serve(source, names))
    try:
        choice = choose_gguf(names, quant)
    except UnusableModel as error:
        raise UnusableModel(f"'{source}': {error}") from None
    return _read(folder, choice, quant)


def _nothing_to_serve(source: str, names: Sequence[str]) -> str:
    """Why a folder without GGUF cannot be served."""
    for suffixes, form in (
        ((".safetensors",), "safetensors"),
        ((".bin", ".pt", ".pth"), "PyTorch"),
        ((".uqff",), "UQFF"),
    ):
        if found := [name for name in names if name.lower().endswith(suffixes)]:
            return (
                f"'{source}' has only {form} weights ({found[0]}), and converting is not available in this version. "
                "Use a GGUF version of the model."
            )
    return f"'{source}' has no model: no file there ends in .gguf. Check the path."


def _from_file(path: Path, quant: str | None) -> ModelFiles:
    shard = Shard.parse(path.name)
    if shard is None:
        return _read(path.parent, Choice((path.name,), f"{path.name}: it is named directly.", None), quant)
    try:
        names = expand_shards(shard, [other.name for other in path.parent.iterdir()])
    except UnusableModel as error:
        raise UnusableModel(f"{path}: {error}") from None
    except OSError as error:
        raise UnusableModel(f"{path.parent}: The shards cannot be listed: {error}. Check the permissions.") from error
    more = f" and {shard.count - 1} more shards" if shard.count > 1 else ""
    return _read(path.parent, Choice(names, f"{names[0]}{more}: it is named directly.", None), quant)


def _read(folder: Path, choice: Choice, quant: str | None) -> ModelFiles:
    paths = tuple(folder / name for name in choice.names)
    headers = [read_header(path) for path in paths]
    first = headers[0]
    _check_role(paths[0], first)
    _check_shards(paths, headers)
    if quant is not None and choice.label is None:
        _check_type(paths[0], first.quantization, quant)
    size = sum(header.file_size for header in headers)
    return ModelFiles(paths, first, size, choice.reason, first.quantization)


def _check_role(path: Path, header: GgufHeader) -> None:
    if header.role != "model":
        what = _ROLES.get(header.role, f"of the type '{header.role}' ('general.type')")
        raise UnusableModel(f"{path}: This file is {what}, not a model. Name the model's own GGUF file.")
    if header.is_embedding_model:
        raise UnusableModel(
            f"{path}: This is an embedding model ({header.architecture}), which is not available in this version. "
            "Name a model that generates text."
        )


def _check_shards(paths: Sequence[Path], headers: Sequence[GgufHeader]) -> None:
    """Every file must be the shard that its name says, and no tensor may be in two or in none.

    Source: llama.cpp, the constructor of llama_model_loader in src/llama-model-loader.cpp.
    """
    count = len(headers)
    names: set[str] = set()
    for index, (path, header) in enumerate(zip(paths, headers, strict=True)):
        if header.split != (index, count):
            number, of = header.split
            raise UnusableModel(
                f"{path}: By its header this is shard {number + 1} of {of}, but by its name {index + 1} of {count}. "
                "Give every shard its own name back (<name>-00001-of-00002.gguf), in one folder."
            )
        if twice := names.intersection(tensor.name for tensor in header.tensors):
            raise UnusableModel(
                f"{path}: The tensor '{min(twice)}' is in another shard too. Download the shards again."
            )
        names.update(tensor.name for tensor in header.tensors)
    expected = headers[0].metadata.get("split.tensors.count", len(names)) if count > 1 else len(names)
    if expected != len(names):
        raise UnusableModel(
            f"{paths[0]}: The shards have {len(names)} tensors together, but must have {expected}. Download them again."
        )


def _check_type(path: Path, label: str, quant: str) -> None:
    """A file named directly, and a quantisation asked for: both must mean the same."""
    wanted = parse_quant(quant)
    if wanted in PREFERENCES:
        matches = bits(label) == int(wanted)
    else:
        # The header knows no publisher's mixes ("UD-Q4_K_XL" is a Q4_K_M there): the name may tell them.
        matches = normalise(label).startswith(wanted) or wanted == normalise(label_in(path.name) or "")
    if not matches:
        raise UnusableModel(
            f"{path}: Its type is {label}, but quant = '{quant}' was asked for. "
            "Remove quant, or name the file that has that type."
        )
