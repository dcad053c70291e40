"""Writes the weights of a safetensors checkpoint as a UQFF export: shards, residual tensors, report.

    python -m modelyard.converter.uqff.write FOLDER OUT --type q4k [--type afq4 …] [--stem NAME] [--dtype BF16]

The folder holds the files of the checkpoint and no others. Weights are read from memory maps, one layer at a time, and
one shard of each type is open.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from modelyard.converter.protocol import Refused, run
from modelyard.converter.safetensors_file import FLOATS, MappedTensor, SafetensorsWriter, read_tensors
from modelyard.converter.uqff.layer_importance import LayerImportance
from modelyard.converter.uqff.layers import UNQUANTIZED, Layer, StoredAs, choose_stored, sort_tensors
from modelyard.converter.uqff.tensors import UqffTensor, as_dtype, layer_tensors, version_tensors
from modelyard.formats.uqff import constants as names
from modelyard.system.reporting_process import report
from modelyard.version import __version__

_METADATA: Final = {
    names.METADATA_PRODUCER: f"modelyard {__version__}",
    names.METADATA_VERSION: ".".join(map(str, names.VERSION)),
}
# Maximum number of tensors of a layer: that of HQQ with a bias.
_MAX_LAYER_TENSORS: Final = 11


def main(arguments: list[str]) -> None:
    """Write the export that the command line describes.

    Raises:
        Refused: the checkpoint cannot be read, or has nothing to quantise.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", action="append", required=True, choices=names.TYPES, dest="types")
    parser.add_argument("--stem", help="stem of the shards' names, for a single type")
    parser.add_argument("--dtype", choices=FLOATS)
    parser.add_argument("--imatrix", type=Path)
    parser.add_argument("--base-model")
    parser.add_argument("--repo-id")
    parser.add_argument("--max-shard-bytes", type=int, default=names.MAX_SHARD_BYTES, metavar="BYTES")
    options = parser.parse_args(arguments)
    report(step="reading the checkpoint", fraction=0.0)
    layers, rest = sort_tensors(_all_tensors(options.folder))
    if not layers:
        raise Refused("The checkpoint has no linear layers that are known here: there is nothing to quantise.")
    importance = LayerImportance.read(options.imatrix, layers, options.folder) if options.imatrix else None
    outputs = [
        _Output(options.out, type_, options.stem or type_, layers, options.max_shard_bytes) for type_ in options.types
    ]
    total = sum(layer.size_bytes for layer in layers) * len(outputs)
    done = 0
    with ExitStack() as open_files:
        for output in outputs:
            open_files.enter_context(output)
        for layer in layers:
            known = importance.of(layer) if importance is not None else [None] * len(layer.parts)
            for output in outputs:
                report(step="quantising", fraction=done / total)
                choice = choose_stored(output.type, layer)
                output.add(layer, choice, layer_tensors(layer, choice.stored, options.dtype, known))
                done += layer.size_bytes
    _write_residual(options.out / names.RESIDUAL, rest, options.dtype)
    _write_report(options, outputs)


class _Output:
    """The shards of one type, and their entry in the report."""

    def __init__(self, folder: Path, type_: str, stem: str, layers: Sequence[Layer], max_shard_bytes: int) -> None:
        self.type = type_
        self._folder, self._stem, self._max_shard_bytes = folder, stem, max_shard_bytes
        self._names = [
            *names.VERSION_KEYS,
            *(layer.prefix + ".weight.optimization_steps" for layer in layers for _ in range(_MAX_LAYER_TENSORS)),
        ]
        self._shards: list[str] = []
        self._details: list[dict[str, Any]] = []
        self._fallbacks: list[dict[str, Any]] = []
        self._files = ExitStack()
        self._writer = self._next_shard()
        for tensor in version_tensors():
            self._write(tensor)
        self._is_started = False

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, *error: Any) -> None:
        self._files.__exit__(*error)

    def add(self, layer: Layer, choice: StoredAs, tensors: Sequence[UqffTensor]) -> None:
        """Append a layer, in a new shard if the current one would exceed its maximum size."""
        size = sum(tensor.data.nbytes for tensor in tensors)
        if self._is_started and self._writer.size_bytes + size > self._max_shard_bytes:
            self._files.close()
            self._writer = self._next_shard()
        self._is_started = True
        for tensor in tensors:
            self._write(tensor)
        detail = {"module": layer.prefix, "default_target": self.type, "resolved_target": choice.wanted}
        self._details.append({**detail, "stored": choice.stored, "shape": list(layer.shape)})
        if choice.stored == UNQUANTIZED:
            change = {"module": layer.prefix, "from": choice.wanted, "to": choice.stored, "shape": list(layer.shape)}
            self._fallbacks.append({**change, "reason": choice.reason})

    def report_entry(self) -> dict[str, Any]:
        """Return the type's entry in the report."""
        stored = [detail["stored"] for detail in self._details]
        fallbacks = {"fallbacks": self._fallbacks} if self._fallbacks else {}
        return {
            "quant": self.type,
            "shards": self._shards,
            "layers": len(stored),
            "actual_counts": {kind: stored.count(kind) for kind in sorted(set(stored))},
            "fallback_count": len(self._fallbacks),
            **fallbacks,
            "layer_details": self._details,
        }

    def _next_shard(self) -> SafetensorsWriter:
        name = f"{self._stem}-{len(self._shards)}{names.SUFFIX}"
        self._shards.append(name)
        return self._files.enter_context(SafetensorsWriter(self._folder / name, self._names, _METADATA))

    def _write(self, tensor: UqffTensor) -> None:
        self._writer.add(tensor.name, tensor.dtype, tensor.shape, tensor.data)


def _write_report(options: argparse.Namespace, outputs: Sequence[_Output]) -> None:
    entries: dict[str, Any] = {
        "schema": 1,
        "generated_by": {"tool": "modelyard quantize", "modelyard_version": __version__},
    }
    if options.base_model:
        entries["base_model"] = options.base_model
    if options.repo_id:
        entries["repo_id"] = options.repo_id
    entries["uqff_version"] = _METADATA[names.METADATA_VERSION]
    entries["outputs"] = [output.report_entry() for output in outputs]
    (options.out / names.REPORT).write_text(json.dumps(entries, indent=2), "utf-8")


def _all_tensors(folder: Path) -> Iterator[MappedTensor]:
    file_names: dict[str, str] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for tensor in read_tensors(path):
            if (other := file_names.get(tensor.name)) is not None:
                raise Refused(f"'{tensor.name}' is in {other} and in {path.name}. Download them again.")
            file_names[tensor.name] = path.name
            yield tensor


def _write_residual(path: Path, tensors: Sequence[MappedTensor], dtype: str | None) -> None:
    with SafetensorsWriter(path, [tensor.name for tensor in tensors], _METADATA) as writer:
        for tensor in tensors:
            stored = dtype if dtype is not None and tensor.dtype in FLOATS else tensor.dtype
            writer.add(tensor.name, stored, tensor.shape, as_dtype(tensor, dtype))


if __name__ == "__main__":
    sys.exit(run(main))
