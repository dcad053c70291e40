"""Builders of one model: which it is, and how it is served, with the names of mistral.rs.

A builder holds the keys of a ``[[models]]`` table of a configuration file, which ``build`` validates. A builder may be
changed and built again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

from modelyard.config import Config, validate_config
from modelyard.errors import ConfigError
from modelyard.inprocess.buildable import McpBuildable
from modelyard.inprocess.builder_words import worded_for_builder
from modelyard.inprocess.mcp_settings import McpSettings
from modelyard.inprocess.tools.program_tools import ModelTools, ProgramTools


class IsqType(StrEnum):
    """The types of mistral.rs to which full-precision weights are quantised when the model is prepared.

    A type that GGUF lacks is replaced by its nearest type, with a line in the log.
    """

    Q2K = "q2k"
    Q3K = "q3k"
    Q4K = "q4k"
    Q5K = "q5k"
    Q6K = "q6k"
    Q8K = "q8k"
    Q4_0 = "q4_0"
    Q4_1 = "q4_1"
    Q5_0 = "q5_0"
    Q5_1 = "q5_1"
    Q8_0 = "q8_0"
    Q8_1 = "q8_1"
    HQQ4 = "hqq4"
    HQQ8 = "hqq8"
    F8E4M3 = "fp8"
    F8Q8 = "f8q8"
    MXFP4 = "mxfp4"
    AFQ2 = "afq2"
    AFQ3 = "afq3"
    AFQ4 = "afq4"
    AFQ6 = "afq6"
    AFQ8 = "afq8"


class ModelBuilder(McpBuildable):
    """One model, whose kind is detected from its files.

    Args:
        model_id: Hugging Face id, or path of a GGUF file or a model folder. Relative paths are relative to the
            working directory.
    """

    _kind = "auto"

    def __init__(self, model_id: str | Path) -> None:
        if not isinstance(model_id, str | Path):
            raise ConfigError(type(self).__name__, [f"model_id must be a text or a path, not {model_id!r}."])
        self._table: dict[str, Any] = {"model_id": str(model_id), "kind": self._kind}

    def __repr__(self) -> str:
        keys: dict[str, Any] = {}
        for key, value in self._table.items():
            keys |= value if isinstance(value, dict) else {key: value}
        model_id, _ = keys.pop("model_id"), keys.pop("kind")
        written = [repr(model_id), *(f"{key}={value!r}" for key, value in keys.items())]
        return f"{type(self).__name__}({', '.join(written)})"

    def with_isq(self, isq: IsqType | str) -> Self:
        """Quantise full-precision weights on this machine. A string may also be a number of bits."""
        return self._with("quantization", isq=str(isq))

    def with_auto_isq(self, bits: int) -> Self:
        """Quantise full-precision weights on this machine to 2, 3, 4, 5, 6 or 8 bits."""
        return self._with("quantization", isq=str(bits))

    def with_quant(self, quant: str | int) -> Self:
        """Use weights that are published in this quantisation, else quantise full-precision weights on this machine."""
        return self._with("quantization", quant=str(quant))

    def with_uqff(self, from_uqff: str | int) -> Self:
        """Load UQFF weights of the repository or folder, named by file, number of bits or type."""
        return self._with("quantization", from_uqff=str(from_uqff))

    def with_imatrix(self, path: str | Path) -> Self:
        """Quantise with this importance matrix."""
        return self._with("quantization", imatrix=str(path))

    def with_dtype(self, dtype: Literal["auto", "bf16", "f16", "f32"]) -> Self:
        """Store weights that are not quantised in this number format."""
        self._table["dtype"] = dtype
        return self

    def with_chat_template(self, path: str | Path) -> Self:
        """Render chats with this Jinja file in place of the model's own template."""
        self._table["chat_template"] = str(path)
        return self

    def with_force_cpu(self) -> Self:
        """Run on the CPU. All models that are built together must agree."""
        return self._with("device", cpu=True)

    def with_device_layers(self, layers: int | Sequence[str]) -> Self:
        """Put this many layers on the first accelerator, or per device as in ``["0:20", "1:12"]``."""
        if isinstance(layers, Sequence) and not isinstance(layers, str):
            return self._with("device", device_layers=list(layers))
        return self._with("device", device_layers=layers)

    def with_devices(self, *names: str) -> Self:
        """Use only these accelerators, by their names in ``modelyard doctor``, such as ``"CUDA0"``."""
        return self._with("device", devices=list(names))

    def with_gpu_layers(self, layers: int) -> Self:
        """Put this many layers on accelerators, counted from the last one; the output counts as one more."""
        return self._with("device", n_gpu_layers=layers)

    def with_split(
        self,
        parts: Sequence[float] | None = None,
        *,
        mode: Literal["none", "layer", "row"] | None = None,
        main_gpu: int | None = None,
    ) -> Self:
        """Divide the model between several accelerators: ``parts`` on each, as ``mode`` has it."""
        given = {"tensor_split": None if parts is None else list(parts), "split_mode": mode, "main_gpu": main_gpu}
        return self._with("device", **{key: value for key, value in given.items() if value is not None})

    def with_experts_on_host(self, layers: int) -> Self:
        """Keep the experts of the first ``layers`` layers in the machine's memory, computed by the CPU."""
        return self._with("device", n_cpu_moe=layers)

    def with_tensor_overrides(self, *overrides: str) -> Self:
        """Put tensors on the host or on a device: regular expressions with places, as ``"ffn_.*_exps=host"``."""
        return self._with("device", tensor_overrides=list(overrides))

    def with_kv_on_host(self) -> Self:
        """Keep the KV cache in the machine's memory, also where the layers are on accelerators."""
        return self._with("device", kv_on_host=True)

    def with_mlock(self) -> Self:
        """Lock the weights in the machine's memory, so that they are never swapped out."""
        return self._with("device", mlock=True)

    def with_mmap(self, *, is_mapped: bool) -> Self:
        """Map the files into memory, or read them."""
        return self._with("device", mmap=is_mapped)

    def with_max_seq_len(self, tokens: int | str) -> Self:
        """Set the length of the context in tokens, a number or ``"8k"``; for an embedding model, the longest input."""
        return self._with("device", max_seq_len=tokens)

    def with_max_num_seqs(self, sequences: int) -> Self:
        """Set how many requests the model computes at the same time; more requests wait."""
        return self._with("device", max_batch_size=sequences)

    def with_sampling(self, **defaults: float) -> Self:
        """Set defaults for sampling: the keys of ``[models.sampling]``, such as ``temperature`` and ``top_p``."""
        return self._with("sampling", **defaults)

    def with_aliases(self, *aliases: str) -> Self:
        """Add names that route to the model."""
        self._table["aliases"] = [*self._table.get("aliases", ()), *aliases]
        return self

    def with_load(self, load: Literal["startup", "on-demand"]) -> Self:
        """Load the model when it is built, or with its first request."""
        self._table["load"] = load
        return self

    def with_pinned(self) -> Self:
        """Never evict the model to make room for another one."""
        self._table["pinned"] = True
        return self

    def with_idle_unload_seconds(self, seconds: float) -> Self:
        """Unload the model when it has had no request for this time."""
        self._table["idle_unload_seconds"] = seconds
        return self

    def with_priority(self, priority: int) -> Self:
        """Set the priority of requests to the model, from -100 to 100; higher goes first."""
        self._table["priority"] = priority
        return self

    def with_draft(self, draft: str) -> Self:
        """Set the draft model by id or alias: a smaller model with the same vocabulary, for speculative decoding."""
        self._table["draft"] = draft
        return self

    def with_adapter(self, name: str, path: str | Path, scale: float = 1.0) -> Self:
        """Serve the model with a LoRA adapter, too, as ``<id of the model>::<name>``."""
        adapter = {"name": name, "path": str(path), "scale": scale}
        self._table["adapters"] = [*self._table.get("adapters", ()), adapter]
        return self

    def table(self, alias: str | None = None) -> dict[str, Any]:
        """Return the description as a ``[[models]]`` table; ``alias`` becomes its id if it is not None."""
        return self._table if alias is None else {**self._table, "alias": alias}

    def tools(self) -> ModelTools:
        """Return the functions that ``with_tools`` added, and what approves calls."""
        return self._tools

    def mcp(self) -> McpSettings:
        """Return what was said of MCP servers."""
        return self._mcp

    def _program_tools(self, config: Config) -> ProgramTools:
        # Models that are added later do not have them.
        return ProgramTools(of_models={model.id: self._tools for model in config.models})

    def config(self) -> Config:
        """Return the description as a configuration with a single model.

        Raises:
            ConfigError: the description is invalid; the error lists every problem.
        """
        with self._own_words():
            tree = {**self._mcp.tables(), "models": [self.table()]}
            return validate_config(tree, source=type(self).__name__)

    def _own_words(self) -> AbstractContextManager[None]:
        return worded_for_builder(several=False)

    def _with(self, table: str, **keys: Any) -> Self:
        self._table[table] = {**self._table.get(table, {}), **keys}
        return self


class TextModelBuilder(ModelBuilder):
    """One model that generates text. It is served without a projector, and so takes neither images nor sound."""

    _kind = "text"


class MultimodalModelBuilder(ModelBuilder):
    """One model that takes images or sound in addition to text."""

    _kind = "multimodal"

    def with_mmproj(self, name: str) -> Self:
        """Use this GGUF file as the projector if several lie beside the model."""
        return self._with("format", mmproj=name)

    def with_max_edge(self, pixels: int) -> Self:
        """Scale images down until their longer side has at most this many pixels."""
        return self._with("multimodal", max_edge=pixels)

    def with_max_audio_seconds(self, seconds: float) -> Self:
        """Refuse clips of sound that are longer."""
        return self._with("multimodal", max_audio_seconds=seconds)


class EmbeddingModelBuilder(ModelBuilder):
    """One model that turns texts into vectors."""

    _kind = "embedding"


class GgufModelBuilder(ModelBuilder):
    """One model of GGUF files that the caller names.

    Args:
        model_id: Hugging Face id, or a folder.
        files: names of files in it: one file, or the shards of one model in order.
    """

    def __init__(self, model_id: str | Path, files: Sequence[str]) -> None:
        super().__init__(model_id)
        names = [files] if isinstance(files, str) else files
        if not (isinstance(names, Sequence) and names and all(isinstance(name, str) for name in names)):
            raise ConfigError(type(self).__name__, [f"files must be the names of files, not {files!r}."])
        self._with("format", format="gguf", quantized_file=";".join(names))
