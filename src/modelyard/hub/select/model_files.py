"""Reads and checks the files of one model on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.formats.gguf.header import GgufHeader
from modelyard.formats.gguf.read import read_header
from modelyard.hub.select.gguf import PREFERENCES, FileChoice, parse_quant
from modelyard.hub.select.kind import Kind, kind_of
from modelyard.hub.select.modalities import NO_MODALITIES, Modalities
from modelyard.hub.sources.quant_labels import bits, label_in, normalise
from modelyard.system.file_stamp import FileStamp, first_changed, stamps_of

_ROLES: Final = {
    "mmproj": "a projector (it turns pictures or sound into embeddings)",
    "adapter": "an adapter (LoRA)",
    "controlvector": "a control vector",
    "imatrix": "an importance matrix",
}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of one model, checked.

    Attributes:
        paths: absolute paths of the shards in order, or of the single file. Links of the cache are kept as links.
        header: header of the first file.
        size_bytes: size of all files but the projector.
        reason: which file was selected and why, in one sentence.
        quantization: the type of the weights, such as "Q4_K_M".
        kind: the kind that the model is served as.
        projector: file of the projector that turns images or sound into embeddings; None for a model without one.
        projector_bytes: size of the projector's file.
        modalities: the inputs beside text that the model takes.
        warnings: differences from the original model when llama.cpp computes it, in sentences.
        stamps: stamps of all files, taken before their headers were read.
        parameter_count: number of weights in all files but the projector; None where not all headers were read.
    """

    paths: tuple[Path, ...]
    header: GgufHeader
    size_bytes: int
    reason: str
    quantization: str
    kind: Kind = "text"
    projector: Path | None = None
    projector_bytes: int = 0
    modalities: Modalities = NO_MODALITIES
    warnings: tuple[str, ...] = ()
    stamps: tuple[FileStamp, ...] = ()
    parameter_count: int | None = None


def read_files(folder: Path, choice: FileChoice, quant: str | None, kind: str) -> ModelFiles:
    """Read and check the headers of the chosen files in ``folder``.

    Args:
        folder: the folder of the files.
        choice: the files to read.
        quant: the requested quantisation, checked against the header if the file's name has no label.
        kind: the configured kind.

    Raises:
        UnusableModel: a file cannot be served; the message contains the reason and a remedy.
    """
    paths = tuple(folder / name for name in choice.names)
    stamps = stamps_before_reading(paths)
    headers = [read_header(path) for path in paths]
    first = headers[0]
    _check_role(paths[0], first)
    _check_shards(paths, headers)
    if quant is not None and choice.label is None:
        _check_type(paths[0], first.quantization, quant)
    size = sum(header.file_size for header in headers)
    # For kind = "multimodal" the plan has already found a projector.
    found = kind_of(paths[0], first, kind, has_projector=kind == "multimodal")
    count = sum(header.parameter_count for header in headers)
    return ModelFiles(
        paths, first, size, choice.reason, first.quantization, found, stamps=stamps, parameter_count=count
    )


def stamps_before_reading(paths: Sequence[Path]) -> tuple[FileStamp, ...]:
    """Return stamps of the files, by which changes while they are read are detected afterwards.

    () if a file is not accessible: reading it raises the error.
    """
    try:
        return stamps_of(paths)
    except (OSError, ValueError):
        return ()


def _check_role(path: Path, header: GgufHeader) -> None:
    if header.role != "model":
        what = _ROLES.get(header.role, f"of the type '{header.role}' ('general.type')")
        raise UnusableModel(f"{path}: This file is {what}, not a model. Name the model's own GGUF file.")


def _check_shards(paths: Sequence[Path], headers: Sequence[GgufHeader]) -> None:
    """Check that every file is the shard that its name says, and that each tensor is in exactly one shard.

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
    """Check that the type of a file that was named directly is the requested quantisation."""
    wanted = parse_quant(quant)
    if wanted in PREFERENCES:
        matches = bits(label) == int(wanted)
    else:
        # Headers do not contain publishers' mixes (for "UD-Q4_K_XL" the header has Q4_K_M): file names may.
        matches = normalise(label).startswith(wanted) or wanted == normalise(label_in(path.name) or "")
    if not matches:
        raise UnusableModel(
            f"{path}: Its type is {label}, but quant = '{quant}' was asked for. "
            "Remove quant, or name the file that has that type."
        )


def are_current(files: ModelFiles) -> bool:
    """Whether the files are unchanged since their headers were read."""
    return first_changed(files.stamps) is None
