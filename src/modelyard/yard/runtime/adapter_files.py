"""The files of a model's adapters, checked against the model."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.errors import UnusableModel
from modelyard.formats.gguf.adapter_checks import check_adapter
from modelyard.formats.gguf.control_vector import check_control_vector
from modelyard.formats.gguf.header import CONTROL_VECTOR
from modelyard.formats.gguf.read import read_header
from modelyard.formats.peft import CONFIG as PEFT_CONFIG
from modelyard.formats.peft import PeftAdapter, read_peft
from modelyard.hub import POOLED_KINDS, OnProgress, Stores
from modelyard.hub.preparation.convert_adapter import convert_adapter, find_converted
from modelyard.protocol.adapters import AdapterFile
from modelyard.system.file_digest import contents_digest, samples_digest
from modelyard.system.file_stamp import FileStamp, stamps_of

if TYPE_CHECKING:
    from pathlib import Path

    from modelyard.config import Adapter, Model
    from modelyard.formats.gguf.header import GgufHeader
    from modelyard.hub import ModelFiles


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """The adapters of a model.

    Attributes:
        files: the adapters.
        width: rows of the largest matrix that they add to, of which a step has one number for each token.
        vector_bytes: the directions of a control vector, which the context has a copy of; 0 without one.
    """

    files: tuple[AdapterFile, ...] = ()
    width: int = 0
    vector_bytes: int = 0

    @property
    def stamps(self) -> tuple[FileStamp, ...]:
        """The stamps of their files, as they were before they were read."""
        return tuple(file.stamp for file in self.files if file.stamp is not None)

    def size_bytes(self, batch_tokens: int) -> int:
        """Return what they take beside the model: their matrices, and what they add to the buffers of a step.

        Args:
            batch_tokens: limit of tokens in a step.
        """
        # What is added to a matrix, before and after it is scaled, as 32-bit floats.
        added = 2 * 4 * self.width * batch_tokens
        return sum(file.size_bytes for file in self.files) + self.vector_bytes + added


NO_ADAPTERS = AdapterFiles()


def find_adapters(
    model: Model, files: ModelFiles, stores: Stores, on_progress: OnProgress | None = None
) -> AdapterFiles:
    """Return the files of a model's adapters.

    They are checked against the headers of the model, as far as these are known. Reads each file in part.

    Args:
        model: the model.
        files: its files.
        stores: where adapters of PEFT are converted to.
        on_progress: called while one is converted; returning False cancels that. None: nothing is converted, and what
            is yet to be is described as it will be.

    Raises:
        UnusableModel: one of them is missing, damaged, or for another model.
    """
    if not model.adapters:
        return NO_ADAPTERS
    if files.kind in POOLED_KINDS:
        raise UnusableModel("It generates no text, and adapters work with models that do. Remove its adapters.")
    base = _headers(files)
    found, width = [], 0
    for adapter in model.adapters:
        try:
            file, its_width = _find(adapter, model, base, stores, on_progress)
        except OSError as error:
            raise _unusable(adapter, f"{adapter.path}: It cannot be read: {error.strerror}.") from error
        except UnusableModel as unusable:
            raise _unusable(adapter, str(unusable)) from unusable
        found.append(file)
        width = max(width, its_width)
    vectors = [file.size_bytes for file in found if file.is_vector]
    return AdapterFiles(tuple(found), width, max(vectors, default=0))


def _find(
    adapter: Adapter, model: Model, base: list[GgufHeader], stores: Stores, on_progress: OnProgress | None
) -> tuple[AdapterFile, int]:
    """Return the file of one adapter, and the rows of the largest matrix that it adds to."""
    path = adapter.path
    if path.is_dir():
        peft = read_peft(path)
        made = _converted(peft, model, stores, on_progress)
        if made is None:
            return AdapterFile(adapter.name, path, "", peft.size_bytes), peft.width
        path = made
    (stamp,) = stamps_of([path])
    header = _header(path)
    if header.role == CONTROL_VECTOR:
        layers = None if adapter.layers is None else (adapter.layers[0], adapter.layers[1])
        check_control_vector(path, header, base[0] if base else None, layers)
        digest = _digest(path, f" {layers}")
        return AdapterFile(adapter.name, path, digest, header.size_bytes, stamp, is_vector=True, layers=layers), 0
    if adapter.layers is not None:
        raise UnusableModel(f"{path}: 'layers' is for control vectors, and this is none. Remove it.")
    if base:
        check_adapter(path, header, base)
    return AdapterFile(adapter.name, path, _digest(path), header.size_bytes, stamp), _width(header)


def adapters_ahead(model: Model) -> AdapterFiles:
    """Return what a model's adapters will take, before the files of the model are chosen. They are not checked yet.

    Reads the header of each; one that cannot be read counts nothing, and is refused by ``find_adapters``.
    """
    found, width = [], 0
    for adapter in model.adapters:
        with suppress(OSError, UnusableModel):
            if adapter.path.is_dir():
                peft = read_peft(adapter.path)
                size, its_width = peft.size_bytes, peft.width
            else:
                header = read_header(adapter.path)
                size, its_width = header.size_bytes, _width(header)
            found.append(AdapterFile(adapter.name, adapter.path, "", size))
            width = max(width, its_width)
    return AdapterFiles(tuple(found), width)


def _width(header: GgufHeader) -> int:
    return max((tensor.shape[1] for tensor in header.tensors if len(tensor.shape) > 1), default=0)


def adapter_bytes(path: Path) -> int:
    """Return the size of an adapter's matrices as an engine holds them.

    Raises:
        UnusableModel: it cannot be read.
    """
    return read_peft(path).size_bytes if path.is_dir() else _header(path).size_bytes


def _header(path: Path) -> GgufHeader:
    if path.suffix == ".safetensors" or path.name == PEFT_CONFIG:
        raise UnusableModel(f"{path}: This is one of the files of an adapter of PEFT. Name their folder.")
    return read_header(path)


def _converted(peft: PeftAdapter, model: Model, stores: Stores, on_progress: OnProgress | None) -> Path | None:
    """Return the GGUF file of an adapter of PEFT; None where it is not converted, and is not to be."""
    if on_progress is None:
        return find_converted(peft, model.source, stores)
    return convert_adapter(peft, model.source, stores, on_progress)


def _headers(files: ModelFiles) -> list[GgufHeader]:
    """Return the headers of all files of a model; [] where they are yet to be downloaded or converted."""
    if len(files.paths) == 1:
        # What is yet to be converted has no tensors of llama.cpp's names.
        is_known = any(tensor.name == "token_embd.weight" for tensor in files.header.tensors)
        return [files.header] if is_known else []
    return [read_header(path) for path in files.paths] if all(path.is_file() for path in files.paths) else []


def _digest(path: Path, how: str = "") -> str:
    """Return a digest of a file, and of how it is applied where that makes a difference."""
    contents = f"{contents_digest([path])} {samples_digest([path])}{how}"
    return hashlib.blake2b(contents.encode(), digest_size=16).hexdigest()


def _unusable(adapter: Adapter, why: str) -> UnusableModel:
    # Clients read this: only the name of the file, and no folder of the server.
    return UnusableModel(f"Its adapter '{adapter.name}': {why.replace(str(adapter.path), adapter.path.name)}")
