"""The buffers that llama.cpp reserves for a step of each architecture, measured on its checkpoint.

``PYTHONPATH=tests:scripts python -m architectures.steps llama3 mamba`` writes those of some anew. The unit tests of the
prediction compare with them without weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from architectures.places import ROOT, cache
from modelyard.engine.llama import Weights
from modelyard.engine.llama.library import lib, log
from modelyard.engine.llama.log_lines import buffer_bytes
from modelyard.formats.gguf.header import GgufHeader
from modelyard.hub import FileRequest, resolve
from modelyard.yard.memory.layer_shapes import vocabulary_size

MEASURED: Final = ROOT / "tests" / "unit" / "yard" / "memory" / "measured_steps.json"
CELLS, TOKENS, SEQUENCES = 1024, 256, 4


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """A model by its header, and what llama.cpp reserves for its largest step.

    Attributes:
        architecture: of the header.
        numbers: of the architecture, by key.
        vocabulary: number of tokens.
        kinds: the tensors of each kind of layer, by the part of their names behind "blk.N.".
        layers: the kind of each layer.
        fused_bytes, plain_bytes: of the buffer, with and without flash attention.
    """

    architecture: str
    numbers: Mapping[str, int]
    vocabulary: int
    kinds: list[dict[str, list[int]]]
    layers: list[int]
    fused_bytes: int
    plain_bytes: int


def measure(name: str) -> MeasuredStep:
    """Convert the checkpoint of an architecture, which was made before, and measure its steps."""
    files = resolve(FileRequest(str(cache() / "checkpoints" / name)))
    header = files.header
    kinds: list[dict[str, list[int]]] = []
    layers = []
    for shapes in _layers(header):
        if shapes not in kinds:
            kinds.append(shapes)
        layers.append(kinds.index(shapes))
    prefix = f"{header.architecture}."
    numbers = {key: value for key, value in header.metadata.items() if key.startswith(prefix) and _is_count(value)}
    fused_bytes, plain_bytes = (_reserved_bytes(files.paths, is_fused=is_fused) for is_fused in (True, False))
    return MeasuredStep(
        header.architecture,
        {key.removeprefix(prefix): int(str(value)) for key, value in numbers.items()},
        vocabulary_size(header),
        kinds,
        layers,
        fused_bytes,
        plain_bytes,
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _layers(header: GgufHeader) -> list[dict[str, list[int]]]:
    layers: dict[int, dict[str, list[int]]] = {}
    for tensor in header.tensors:
        if tensor.name.startswith("blk."):
            _, number, part = tensor.name.split(".", 2)
            layers.setdefault(int(number), {})[part] = list(tensor.shape)
    return [layers[number] for number in sorted(layers)]


def _reserved_bytes(paths: tuple[Path, ...], *, is_fused: bool) -> int:
    weights = Weights(list(paths), on_progress=lambda _: True)
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = CELLS, TOKENS, TOKENS
    params.n_seq_max = params.n_outputs_max = SEQUENCES
    params.kv_unified = params.swa_full = True
    params.flash_attn_type = int(is_fused)
    log.clear()
    context = lib.llama_init_from_model(weights.pointer, params)
    reserved = buffer_bytes(log.buffers, "compute")
    lib.llama_free(context)
    weights.free()
    return reserved


def main(names: list[str]) -> None:
    """Measure the steps of some architectures, and keep those of the others."""
    measured = json.loads(MEASURED.read_text("utf-8")) if MEASURED.is_file() else {}
    for name in names:
        measured[name] = asdict(measure(name))
    lines = (f"  {json.dumps(name)}: {json.dumps(step)}" for name, step in sorted(measured.items()))
    MEASURED.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
