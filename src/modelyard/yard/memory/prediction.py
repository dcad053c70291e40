"""Predicts what a model takes of the machine's memory, from the header of its file. Pure.

Physical memory is counted, including all pages that a busy server touches. Formulas follow llama.cpp as of b11739; the
constants without a source are fitted to measurements, which ``tests/integration/test_footprint.py`` repeats.

Nothing here raises. Where a header does not say enough, because its architecture is not known here or it is the first
of several shards, the prediction is the larger of the possible ones.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Final

from modelyard.engine.settings import KEPT_EMBEDDINGS_BYTES, micro_batch
from modelyard.hub import ModelFiles
from modelyard.system.cores import compute_cores
from modelyard.system.file_stamp import FileStamp
from modelyard.yard.memory.cache_bytes import (
    KvType,
    Windows,
    cell_bytes,
    cells_of_windows,
    context_cells,
    has_state,
    kv_bytes,
    parked_bytes,
    state_bytes,
)
from modelyard.yard.memory.footprint import Footprint
from modelyard.yard.memory.step_bytes import compute_bytes, graph_bytes, output_bytes, sampler_bytes, work_bytes
from modelyard.yard.memory.step_operations import Step
from modelyard.yard.memory.weight_bytes import tensor_bytes, twice_held_bytes, vocabulary_bytes

# What an engine takes beside its tensors and buffers: structures of graphs, its thread, Python objects.
ENGINE_BYTES: Final = 8_000_000

# A projector with its buffers, in sizes of its file. The buffers are those of one image of the projector's own size.
# They differ most between projectors, and are assumed to be as large as the weights.
PROJECTOR_PARTS: Final = 2


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """What decides how much memory the context of a model that generates text takes.

    Attributes:
        context_length: tokens; None: the engine's default.
        running: sequences that sample in one step.
        sequences: of the context, running or kept.
        batch_tokens: bound of the tokens in a step.
        kv_type: type of the numbers in the KV cache.
        flash_attn: whether attention is fused; False: the scores of every head are written to memory.
        parks: whether idle prefixes are held beside the KV cache.
        threads: threads that compute; None: as many as engines have.
    """

    context_length: int | None
    running: int
    sequences: int
    batch_tokens: int
    kv_type: KvType = "f16"
    flash_attn: bool | None = None
    parks: bool = True
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class ContextBytes:
    """Memory that a context takes on the host where all of the model is there, in bytes.

    Attributes:
        cache: KV cells and recurrent states.
        compute: results of a step.
        projector: a projector with its buffers.
        others: what stays on the host wherever layers are: outputs, samplers, graphs, idle prefixes.
    """

    cache: int
    compute: int
    projector: int
    others: int

    @property
    def total(self) -> int:
        """Bytes of all."""
        return self.cache + self.compute + self.projector + self.others


def predict(files: ModelFiles, context: ContextSettings, processor: str = platform.machine()) -> Footprint:
    """Return the memory that the model in ``files`` will take.

    Args:
        files: the header of the first file counts; of further shards the size is enough.
        context: settings of its context.
        processor: as ``platform.machine`` names it.
    """
    return footprint(files, context_parts(files, context).total, processor)


def context_parts(files: ModelFiles, context: ContextSettings) -> ContextBytes:
    """Return the memory that a context of the model in ``files`` takes."""
    header, kv_type = files.header, context.kv_type
    running, sequences = context.running, context.sequences
    tokens = micro_batch(context.batch_tokens, context.flash_attn, has_projector=bool(files.projector_bytes))
    threads = compute_cores() if context.threads is None else context.threads
    cells = context_cells(header, context.context_length)
    # A draft model, and an engine without prefixes, keep all cells of all layers.
    windows = Windows(sequences, tokens) if context.parks else None
    largest = Step(
        cells,
        tokens,
        sequences,
        # Draft tokens are verified with as many logits as the context has sequences; recurrent models have none.
        outputs=running if has_state(header) else sequences,
        has_flash_attention=context.flash_attn is not False,
        has_embeddings=bool(files.projector_bytes),
        window_cells=cells_of_windows(header, cells, windows),
    )
    return ContextBytes(
        cache=kv_bytes(header, cells, kv_type, windows) + state_bytes(header, sequences),
        compute=compute_bytes(header, largest, running),
        projector=PROJECTOR_PARTS * files.projector_bytes,
        others=(parked_bytes(header, cells, sequences, kv_type, windows) if context.parks else 0)
        + output_bytes(header, sequences)
        + sampler_bytes(header, running)
        + graph_bytes(header, tokens)
        + work_bytes(header, tokens, threads, cells if context.flash_attn is False else 0)
        + cell_bytes(header, cells)
        + (KEPT_EMBEDDINGS_BYTES if files.projector_bytes else 0),
    )


def footprint(files: ModelFiles, context_bytes: int, processor: str = platform.machine()) -> Footprint:
    """Return the footprint of the model in ``files`` with a context of ``context_bytes``."""
    header = files.header
    tensors = tensor_bytes(files)
    return Footprint(
        # The stamps are part of the key, because a replaced file is not shared with the old one that is still mapped.
        weights_key="\n".join([*(str(path.resolve()) for path in files.paths), *map(_identity, files.stamps)]),
        weights_bytes=tensors + twice_held_bytes(header, tensors, processor) + vocabulary_bytes(header),
        context_bytes=context_bytes + ENGINE_BYTES,
    )


def _identity(stamp: FileStamp) -> str:
    return f"{stamp.device}:{stamp.inode} {stamp.modified_ns}"
