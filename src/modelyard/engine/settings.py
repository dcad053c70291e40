"""What an engine is told when it is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modelyard.protocol.prompts import Sampling
from modelyard.system.file_stamp import FileStamp

# Tokens of context where nothing is configured: long contexts cost memory that small machines lack, and a model
# trained for more says so in its file, not what the user has room for.
DEFAULT_CONTEXT = 8192

# Most tokens in a step, and most of them for a short prompt while streams run; measured in docs/performance.md.
BATCH_TOKENS = 512
PREFILL_BESIDE_DECODE = 64

# Most tokens in a step of a draft model, which reads a prompt in parts of them.
DRAFT_BATCH_TOKENS = 128

# Idle prefixes may take one such part of what the KV cache takes, in host memory.
PARKED_PART = 4

# Embeddings of images and sound that an engine keeps, for the same in later turns and in other requests: as much as the
# largest picture takes, of 4,096 tokens (Qwen2-VL) for a model that is 4,096 wide.
KEPT_EMBEDDINGS_BYTES = 64 << 20

# What llama.cpp's own tools use where neither the request, nor the configuration, nor the file says anything.
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


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """One model and how to serve it.

    Attributes:
        name: the model's id, for messages.
        paths: its GGUF file, or all shards in order.
        quantization: label of its quantisation, such as "Q4_K_M".
        kind: what it is to do.
        context_length: KV cells in tokens, shared by all its sequences; None: the trained context, at most
            DEFAULT_CONTEXT.
        max_seqs: sequences that run at once; more wait in line.
        prefix_slots: prefixes kept beside them.
        offload: whether to use an accelerator that the installed llama.cpp supports.
        device_layers: layers on each accelerator, by its number; None: all layers, as llama.cpp divides them.
        chat_template: Jinja source in place of the file's own.
        tool_format, reasoning_format: how its answers are read, by names in the registries, "none" for no reasoning;
            None: told from the template.
        sampling: defaults for what a request leaves unsaid.
        batch_tokens: most tokens in a step.
        kv_type: of the numbers in the KV cache.
        flash_attn: None: where the device has it.
        prompt_lookup: whether answers are guessed from what was said before, where that pays.
        draft: the GGUF file of a smaller model of the same vocabulary, or its shards, which says what may come next; ()
            for none.
        draft_name: its id, for messages.
        draft_device_layers: as ``device_layers``, of that model.
        weight: its part of the device's time, relative to that of other engines.
        priority: while it computes, engines with a lower one wait.
        kv_keep: where prompts outlive the engine.
        kv_keep_bytes: most that they take: of this engine in memory, of all engines together in ``kv_dir``.
        kv_dir: folder of prompts kept on disk.
        projector: the GGUF file that turns images or sound into embeddings for the model; None: it takes neither.
        audio_encoder: what that file calls its encoder of sound; "" where it has none.
        files: all of its files as they were when they were looked into; () where nobody watches them.
    """

    name: str
    paths: tuple[Path, ...]
    quantization: str
    kind: Literal["text", "embedding", "rerank"] = "text"
    context_length: int | None = None
    max_seqs: int = 32
    prefix_slots: int = 16
    offload: bool = True
    device_layers: tuple[int, ...] | None = None
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
    draft_device_layers: tuple[int, ...] | None = None
    weight: float = 1.0
    priority: int = 0
    kv_keep: Literal["off", "memory", "disk"] = "off"
    kv_keep_bytes: int = 0
    kv_dir: Path | None = None
    projector: Path | None = None
    audio_encoder: str = ""
    files: tuple[FileStamp, ...] = ()
