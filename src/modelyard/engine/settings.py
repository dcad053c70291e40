"""Settings of an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Literal

from modelyard.protocol.adapters import AdapterFile
from modelyard.protocol.placement import ANYWHERE, Placement
from modelyard.protocol.prompts import Sampling
from modelyard.system.file_stamp import FileStamp

# Tokens of context if none is configured: long contexts need memory that small machines lack, and the length that a
# model was trained for does not tell what the machine has room for.
DEFAULT_CONTEXT = 8192

# Limit of tokens in a step, and of prompt tokens in a step beside running streams; see docs/performance.md.
BATCH_TOKENS = 512
PREFILL_BESIDE_DECODE = 64

# Limit of tokens in a step of a draft model, which computes a prompt in parts of this size.
DRAFT_BATCH_TOKENS = 128

# Tokens of a step that are computed at once without flash attention.
UNFUSED_TOKENS = 128

# Parked prefixes may take the KV cache's size divided by this, in host memory. Checkpoints of a model whose memory
# cannot be cut back may take as much, and so many of them beyond that.
PARKED_PART = 4
CHECKPOINTS = 8

# Cached embeddings of images and sound of one engine, for later turns and other requests: as much as the largest image
# takes, with 4,096 tokens (Qwen2-VL) in a model that is 4,096 wide.
KEPT_EMBEDDINGS_BYTES = 64 << 20

# llama.cpp's own defaults, where neither the request nor the configuration nor the file has a value.
DEFAULT_SAMPLING = Sampling(
    temperature=0.8,
    top_k=40,
    top_p=0.95,
    min_p=0.05,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    penalty_window=-1,
    dry_multiplier=0.0,
    dry_base=1.75,
    dry_allowed_length=2,
    dry_sequence_breakers=("\n", ":", '"', "*"),
)


def published_sampling(value_of: Callable[[str], object]) -> Sampling:
    """Return the sampling that a file recommends, as far as its values are numbers.

    Args:
        value_of: returns the value of a key of the file's header, as a number or as its text; None without one.

    Source: llama.cpp, src/llama-arch.cpp, general.sampling.*
    """

    def number(key: str) -> float | None:
        value = value_of(f"general.sampling.{key}")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        try:
            found = float(value)
        except ValueError:
            return None
        return found if isfinite(found) else None

    top_k = number("top_k")
    return Sampling(
        temperature=number("temp"),
        top_k=None if top_k is None else int(top_k),
        top_p=number("top_p"),
        min_p=number("min_p"),
        repetition_penalty=number("penalty_repeat"),
    )


def micro_batch(batch_tokens: int, flash_attn: bool | None, *, has_projector: bool) -> int:
    """Return how many tokens of a step are computed at once.

    Without flash attention the scores of every head take 4 bytes for each KV cell and token. Fewer tokens take less,
    and no longer: docs/performance.md. The embeddings of an image may have to be computed at once.
    """
    return batch_tokens if flash_attn is not False or has_projector else min(batch_tokens, UNFUSED_TOKENS)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """One model and how to serve it.

    Attributes:
        name: the model's id, for messages.
        paths: its GGUF file, or all shards in order.
        quantization: label of its quantisation, such as "Q4_K_M".
        kind: whether the model generates text, embeds or ranks.
        context_length: KV cells in tokens, shared by all its sequences; None: the trained context, at most
            DEFAULT_CONTEXT.
        first_cells: KV cells that it begins with, of those; more are there once a ``Resize`` asks for them. None: all.
        is_windowed: whether layers with a sliding window keep cells for their windows alone; see ``engine.windows``.
        max_seqs: sequences that run at once; more wait in the queue.
        prefix_slots: prefixes kept beside them.
        placement: where its weights, its cache and its computation are.
        chat_template: Jinja source in place of the file's own.
        tool_format, reasoning_format: formats of its answers, by names in the registries, "none" for no reasoning;
            None: determined from the template.
        sampling: defaults for what a request does not set.
        batch_tokens: limit of tokens in a step.
        kv_type: type of the numbers in the KV cache.
        flash_attn: None: where the device has it.
        prompt_lookup: whether draft tokens are looked up in the text so far, where that pays.
        draft: the GGUF file, or the shards, of a smaller model of the same vocabulary that drafts tokens; () for none.
        draft_name: id of the draft model, for messages.
        draft_placement: where the draft model is.
        weight: part of the device time, relative to the weights of other engines.
        priority: while this engine computes, engines with a lower priority wait.
        kv_keep: where prompts outlive the engine.
        kv_keep_bytes: limit of their size: of this engine's in memory, of all engines' together in ``kv_dir``.
        kv_dir: folder of prompts kept on disk.
        projector: the GGUF file that turns images or sound into embeddings for the model; None: it takes neither.
        audio_encoder: name of the encoder of sound in that file; "" where it has none.
        files: stamps of all of its files when they were inspected; () where nothing watches them.
        adapters: LoRA adapters that requests may use, checked against the model.
    """

    name: str
    paths: tuple[Path, ...]
    quantization: str
    kind: Literal["text", "embedding", "rerank"] = "text"
    context_length: int | None = None
    first_cells: int | None = None
    is_windowed: bool = False
    max_seqs: int = 32
    prefix_slots: int = 16
    placement: Placement = ANYWHERE
    chat_template: str | None = None
    tool_format: str | None = None
    reasoning_format: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    batch_tokens: int = BATCH_TOKENS
    kv_type: Literal["f16", "q8_0"] = "f16"
    flash_attn: bool | None = None
    prompt_lookup: bool = True
    draft: tuple[Path, ...] = ()
    draft_name: str = ""
    draft_placement: Placement = ANYWHERE
    weight: float = 1.0
    priority: int = 0
    kv_keep: Literal["off", "memory", "disk"] = "off"
    kv_keep_bytes: int = 0
    kv_dir: Path | None = None
    projector: Path | None = None
    audio_encoder: str = ""
    files: tuple[FileStamp, ...] = ()
    adapters: tuple[AdapterFile, ...] = ()

    @property
    def step_tokens(self) -> int:
        """How many tokens of a step are computed at once; see ``micro_batch``."""
        return micro_batch(self.batch_tokens, self.flash_attn, has_projector=self.projector is not None)
