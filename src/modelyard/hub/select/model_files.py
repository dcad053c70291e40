"""The files of one model on disk, opened and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.errors import UnusableModel
from modelyard.formats.gguf.header import GgufHeader
from modelyard.formats.gguf.read import read_header
from modelyard.hub.select.gguf import PREFERENCES, Choice, parse_quant
from modelyard.hub.select.kind import Kind, kind_of
from modelyard.hub.select.senses import NO_SENSES, Senses
from modelyard.hub.sources.quant_labels import bits, label_in, normalise
from modelyard.system.file_stamp import FileStamp, first_changed, stamps_of

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
        size_bytes: of all files but the projector.
        reason: which file, and why, in one sentence.
        quantization: the type of the weights, such as "Q4_K_M".
        kind: what it is served as.
        projector: what turns images and sound into embeddings for it, if anything does.
        projector_bytes: size of that file.
        senses: what it takes beside text.
        warnings: what the model cannot do here although its makers promise it, in sentences.
        stamps: of all files, as they were when they were looked into.
    """

    paths: tuple[Path, ...]
    header: GgufHeader
    size_bytes: int
    reason: str
    quantization: str
    kind: Kind = "text"
    projector: Path | None = None
    projector_bytes: int = 0
    senses: Senses = NO_SENSES
    warnings: tuple[str, ...] = ()
    stamps: tuple[FileStamp, ...] = ()


def read_files(folder: Path, choice: Choice, quant: str | None, kind: str) -> ModelFiles:
    """The chosen files in ``folder``, with every header read and checked.

    quant is checked against the header where no label in the name says what the type is; kind is the configured one.

    Raises:
        UnusableModel: with what is wrong and what to do.
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
    # Of a model that is to be multimodal, a projector was found before.
    found = kind_of(paths[0], first, kind, has_projector=kind == "multimodal")
    return ModelFiles(paths, first, size, choice.reason, first.quantization, found, stamps=stamps)


def stamps_before_reading(paths: Sequence[Path]) -> tuple[FileStamp, ...]:
    """The files as they are; what changes while they are read is noticed afterwards.

    () where one cannot be looked at: whoever reads it says why.
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


def are_current(files: ModelFiles) -> bool:
    """Whether the files are still those that were looked into."""
    return first_changed(files.stamps) is None
