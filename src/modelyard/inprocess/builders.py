"""Builders: which models, and how each is served, with the reference's names.

A builder says what a ``[[models]]`` table of a configuration file says, in the same words; it is checked when it is
built. Builders may be changed until then, and built more than once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from modelyard.config import Config, load_config, validate_config
from modelyard.errors import ConfigError

if TYPE_CHECKING:
    from modelyard.inprocess.async_model import AsyncModel
    from modelyard.inprocess.model import Model


class IsqType(StrEnum):
    """What full-precision weights are quantised to at load time: the reference's types.

    Those that GGUF does not have become its nearest, which the log says.
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


class Buildable(ABC):
    """What models can be built of."""

    @abstractmethod
    def config(self) -> Config:
        """The same as a configuration.

        Raises:
            ConfigError: something in it cannot be; it lists every problem.
        """

    def build(self) -> Model:
        """Load the models, and return when they serve. An interrupt, too, leaves nothing behind.

        Raises:
            ConfigError: something in it cannot be, or files are missing or unusable.
            InsufficientMemory: a model does not fit the memory budget by itself.
            ModelLoadFailed: a model could not be loaded; the others are freed again.
        """
        from modelyard.inprocess.model import Model

        return Model(self.config())

    async def build_async(self) -> AsyncModel:
        """As ``build``, for the event loop that it is called on, which the models then belong to."""
        from modelyard.inprocess.async_model import AsyncModel

        model = AsyncModel(self.config())
        await model.start()
        return model


class ModelBuilder(Buildable):
    """One model, whose kind is told from its files.

    Args:
        model_id: Hugging Face id, or path of a GGUF file or a model folder. Relative paths are relative to the
            working directory.
    """

    _kind = "auto"

    def __init__(self, model_id: str | Path) -> None:
        self._table: dict[str, Any] = {"model_id": str(model_id), "kind": self._kind}

    def with_isq(self, isq: IsqType | str) -> Self:
        """Quantise full precision on this machine; a string may also be a number of bits."""
        return self._with("quantization", isq=str(isq))

    def with_auto_isq(self, bits: int) -> Self:
        """Quantise full precision on this machine to 2, 3, 4, 5, 6 or 8 bits."""
        return self._with("quantization", isq=str(bits))

    def with_quant(self, quant: str | int) -> Self:
        """Take weights that are published in this quantisation, else quantise full precision here."""
        return self._with("quantization", quant=str(quant))

    def with_uqff(self, from_uqff: str | int) -> Self:
        """Load UQFF weights of the repository or folder: a file, a number of bits, or a type."""
        return self._with("quantization", from_uqff=str(from_uqff))

    def with_imatrix(self, path: str | Path) -> Self:
        """Quantise by this file, which says what weights matter most."""
        return self._with("quantization", imatrix=str(path))

    def with_dtype(self, dtype: Literal["auto", "bf16", "f16", "f32"]) -> Self:
        """Keep weights that are not quantised in these numbers."""
        self._table["dtype"] = dtype
        return self

    def with_chat_template(self, path: str | Path) -> Self:
        """Write chats by this Jinja file in the place of the model's own."""
        self._table["chat_template"] = str(path)
        return self

    def with_force_cpu(self) -> Self:
        """Run on the CPU. All models that are built together must agree."""
        return self._with("device", cpu=True)

    def with_device_layers(self, layers: int | Sequence[str]) -> Self:
        """Put so many layers on the first accelerator, or as ``["0:20", "1:12"]`` says."""
        return self._with("device", device_layers=layers if isinstance(layers, int) else list(layers))

    def with_max_seq_len(self, tokens: int) -> Self:
        """Length of the context in tokens; of an embedding model the longest input."""
        return self._with("device", max_seq_len=tokens)

    def with_max_num_seqs(self, sequences: int) -> Self:
        """Requests that the model works on at the same time; more wait."""
        return self._with("device", max_batch_size=sequences)

    def with_sampling(self, **defaults: float) -> Self:
        """Sampling for requests that do not say otherwise: ``temperature``, ``top_p``, …, as ``[models.sampling]``."""
        return self._with("sampling", **defaults)

    def with_aliases(self, *aliases: str) -> Self:
        """Further names that route to the model."""
        self._table["aliases"] = [*self._table.get("aliases", ()), *aliases]
        return self

    def with_load(self, load: Literal["startup", "on-demand"]) -> Self:
        """Load it when it is built, or with its first request."""
        self._table["load"] = load
        return self

    def with_pinned(self) -> Self:
        """Never unload it to make room for another one."""
        self._table["pinned"] = True
        return self

    def with_idle_unload_seconds(self, seconds: float) -> Self:
        """Unload it when nobody has used it for so long."""
        self._table["idle_unload_seconds"] = seconds
        return self

    def with_priority(self, priority: int) -> Self:
        """Requests of models with a higher number, from -100 to 100, go first."""
        self._table["priority"] = priority
        return self

    def with_draft(self, draft: str) -> Self:
        """Id or alias of a smaller model of the same vocabulary, which drafts what this one verifies."""
        self._table["draft"] = draft
        return self

    def table(self, alias: str | None = None) -> dict[str, Any]:
        """As a ``[[models]]`` table, listed under ``alias``, if any."""
        return self._table if alias is None else {**self._table, "alias": alias}

    def config(self) -> Config:
        """The same as a configuration with a single model.

        Raises:
            ConfigError: something in it cannot be; it lists every problem.
        """
        return validate_config({"models": [self.table()]}, source=type(self).__name__)

    def _with(self, table: str, **keys: Any) -> Self:
        self._table[table] = {**self._table.get(table, {}), **keys}
        return self


class TextModelBuilder(ModelBuilder):
    """One model that generates text. Of one that takes images or sound, the projector is left out."""

    _kind = "text"


class MultimodalModelBuilder(ModelBuilder):
    """One model that takes images or sound beside text."""

    _kind = "multimodal"

    def with_mmproj(self, name: str) -> Self:
        """Take this GGUF file as the projector, where several lie beside the model."""
        return self._with("format", mmproj=name)

    def with_max_edge(self, pixels: int) -> Self:
        """Scale images down to so many pixels of their longer side."""
        return self._with("multimodal", max_edge=pixels)

    def with_max_audio_seconds(self, seconds: float) -> Self:
        """Take clips of sound of at most that length."""
        return self._with("multimodal", max_audio_seconds=seconds)


class EmbeddingModelBuilder(ModelBuilder):
    """One model that turns texts into vectors."""

    _kind = "embedding"


class GgufModelBuilder(ModelBuilder):
    """One model of GGUF files that are named.

    Args:
        model_id: Hugging Face id, or a folder.
        files: their names in it: one, or the shards of one model in order.
    """

    def __init__(self, model_id: str | Path, files: Sequence[str]) -> None:
        super().__init__(model_id)
        names = [files] if isinstance(files, str) else files
        self._with("format", format="gguf", quantized_file=";".join(names))


class MultiModelBuilder(Buildable):
    """Several models in one process, each on an engine of its own.

    The first that is added is the default, unless ``with_default_model`` names another.
    """

    def __init__(self) -> None:
        self._models: list[tuple[ModelBuilder, str | None]] = []
        self._default: str | None = None
        self._memory: dict[str, Any] = {}
        self._runtime: dict[str, Any] = {}
        self._hub: dict[str, Any] = {}

    def add_model(self, builder: ModelBuilder) -> Self:
        """Add a model, whose id is what its builder was given."""
        self._models.append((builder, None))
        return self

    def add_model_with_alias(self, alias: str, builder: ModelBuilder) -> Self:
        """Add a model whose id is ``alias``; what its builder was given routes to it, too."""
        self._models.append((builder, alias))
        return self

    def with_default_model(self, model: str) -> Self:
        """Id or alias of the model for requests that name none."""
        self._default = model
        return self

    def with_memory_budget(self, budget: str | float) -> Self:
        """What all models may take together: a size such as ``"16GiB"``, or a part of the machine such as ``0.5``."""
        self._memory["budget"] = budget
        return self

    def with_runtime(self, **keys: Any) -> Self:
        """How many sequences the engines hold: the keys of ``[runtime]``, such as ``prefix_cache_n``."""
        self._runtime |= keys
        return self

    def with_token_source(self, source: str) -> Self:
        """Where the hub's token comes from: ``cache``, ``env:VARIABLE``, ``path:FILE``, ``literal:TOKEN``, ``none``."""
        self._hub["token_source"] = source
        return self

    def config(self) -> Config:
        """The same as a configuration.

        Raises:
            ConfigError: there is no model, two have a name in common, the default is none of them, or something else
                cannot be; it lists every problem.
        """
        if not self._models:
            raise ConfigError("MultiModelBuilder", ["No models: add at least one with add_model."])
        tables = [builder.table(alias) for builder, alias in self._models]
        default = self._default or tables[0].get("alias") or tables[0]["model_id"]
        top: Mapping[str, Any] = {
            "default_model_id": default,
            "memory": self._memory,
            "runtime": self._runtime,
            "hub": self._hub,
            "models": tables,
        }
        return validate_config(top, source="MultiModelBuilder")


class ConfigFile(Buildable):
    """All models of a TOML file, as ``modelyard from-config`` serves them."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def config(self) -> Config:
        """The configuration in the file, read when it is asked for.

        Raises:
            ConfigError: it cannot be read or used; it lists every problem.
        """
        return load_config(self._path)


def from_config(path: str | Path) -> ConfigFile:
    """The models of a TOML file, to be built: ``from_config("models.toml").build()``."""
    return ConfigFile(path)
