"""``[[models]]`` and its tables: one model, on an engine of its own.

Numbers that a request may carry, too (sampling), are named types, so that the HTTP schema refuses exactly what this one
refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, Strict, StringConstraints, ValidationInfo, field_validator

from modelyard.config.adapter import SEPARATOR, Adapter
from modelyard.config.base import Items as _List
from modelyard.config.base import Table
from modelyard.config.base import Text as _Text
from modelyard.config.counts import CONTEXT_WORDING, MAX_CONTEXT, read_context_length
from modelyard.config.device_layers import DEVICE_LAYERS_WORDING, MAX_DEVICES, MAX_LAYERS, read_device_layers
from modelyard.config.durations import DURATION_EXAMPLES, read_duration
from modelyard.config.model_reference import ModelReference, parse_model_reference, unique_ids
from modelyard.config.names import (
    Dtype,
    FileFormat,
    Isolation,
    Kind,
    Load,
    Origin,
    ReasoningFormatName,
    SplitMode,
    ToolFormatName,
)
from modelyard.config.paths import absolute, base_of
from modelyard.config.remote_addresses import REMOTE_WORDING, read_addresses
from modelyard.config.tensor_overrides import OVERRIDES_WORDING, read_tensor_overrides

_INT32_MAX = MAX_CONTEXT

MAX_ADAPTERS: Final = 256
"""Maximum number of adapters of one model."""

# The upper bounds that OpenAI's API does not have keep a value finite as a 32-bit float and inside a 32-bit integer.
Temperature = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
TopK = Annotated[int, Field(ge=0, le=_INT32_MAX)]
TopP = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
MinP = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
RepetitionPenalty = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
PresencePenalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
FrequencyPenalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]

_LowerText = Annotated[str, StringConstraints(min_length=1, to_lower=True)]


class Quantization(Table):
    """``[models.quantization]``: which weights to use. At most one of the three keys."""

    quant: _LowerText | None = Field(
        default=None,
        description="A number of bits (`2`, `3`, `4`, `5`, `6`, `8`) or a type such as `q4_k_m`: a file of that type "
        "in the repository or in one of `[hub] siblings`, else full precision, quantised on this machine. `auto` is "
        "the best with which the models that are loaded at the start fit the memory together.",
    )
    isq: _LowerText | None = Field(
        default=None,
        description="Quantise full precision on this machine (in-situ quantisation): a number of bits, or one of "
        "mistral.rs's types such as `q4k`. The result is kept for the next load.",
    )
    from_uqff: _Text | None = Field(
        default=None,
        description="Load UQFF weights from the repository or folder: a file, several separated by `;`, a number of "
        "bits, or a type such as `q4k`.",
    )
    imatrix: Annotated[Path, Strict(False)] | None = Field(
        default=None,
        description="Importance matrix for quantisation on this machine, made by `llama-imatrix`. Relative to the TOML "
        "file.",
    )

    @field_validator("imatrix")
    @classmethod
    def _make_absolute(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else absolute(path, base_of(info.context))


class Format(Table):
    """``[models.format]``: which files of the folder or repository to use. Unset: selected automatically."""

    format: FileFormat | None = Field(
        default=None,
        description="Which files are considered: `gguf`, or `plain` for full precision in safetensors. Unset: both. "
        "`ggml` is refused: llama.cpp no longer reads it.",
    )
    quantized_file: _Text | None = Field(
        default=None,
        description="Name of the GGUF file in the folder or repository, such as `model-Q4_K_M.gguf`; the shards of one "
        "model in their order, separated by `;`. Takes the place of `quant`.",
    )
    mmproj: _Text | None = Field(
        default=None,
        description="Name of the GGUF file with the projector, which encodes images or sound for the model. Unset: "
        "found beside the model.",
    )

    @property
    def quantized_files(self) -> tuple[str, ...]:
        """The names in ``quantized_file``."""
        return tuple(name.strip() for name in (self.quantized_file or "").split(";") if name.strip())


class Device(Table):
    """``[models.device]``: where the model runs, how long its context is, and how many requests share it."""

    cpu: bool | None = Field(
        default=None,
        description="Run on the CPU only. One value for all models: those that leave it unset follow the others; "
        "unset everywhere, a GPU is used where there is one.",
    )
    devices: _List[_Text] = Field(
        default=(),
        max_length=MAX_DEVICES,
        description='Devices that the model may use, by their names in `modelyard doctor`, such as `["CUDA0"]`. Unset: '
        "all accelerators.",
    )
    n_gpu_layers: int | None = Field(
        default=None,
        ge=0,
        le=_INT32_MAX,
        description="Layers on accelerators, counted from the last one; the output counts as one more. The others are "
        "computed by the CPU. Unset: all.",
    )
    device_layers: Annotated[tuple[int, ...], BeforeValidator(read_device_layers)] | None = Field(
        default=None,
        json_schema_extra={"wording": DEVICE_LAYERS_WORDING},
        description='Layers on each accelerator: a number for the first one, or `["0:20", "1:12"]`, 20 on device 0 and '
        "12 on device 1, in the order of `devices`. In place of `n_gpu_layers` and `tensor_split`.",
    )
    n_cpu_moe: int | None = Field(
        default=None,
        ge=0,
        le=MAX_LAYERS,
        description="Layers, counted from the first, whose experts stay in the machine's memory and are computed by "
        "the CPU, while the rest of these layers is on accelerators.",
    )
    tensor_overrides: Annotated[tuple[tuple[str, str], ...], BeforeValidator(read_tensor_overrides)] = Field(
        default=(),
        json_schema_extra={"wording": OVERRIDES_WORDING},
        description="Tensors with places of their own: regular expressions for their names, each with `host` or a "
        'device, such as `["ffn_.*_exps=host"]`. The first that matches counts, before `n_cpu_moe`.',
    )
    split_mode: SplitMode | None = Field(
        default=None,
        description="How several accelerators share the model: whole layers each (`layer`), rows of all matrices each "
        "(`row`, only on devices that can), or all on `main_gpu` (`none`). Unset: `layer`.",
    )
    tensor_split: _List[Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]] = Field(
        default=(),
        max_length=MAX_DEVICES,
        description="Part of the model on each accelerator, such as `[3, 1]`. Unset: by their memory.",
    )
    main_gpu: int | None = Field(
        default=None,
        ge=0,
        lt=MAX_DEVICES,
        description="Number of the accelerator that has the whole model with `split_mode` `none`, or its small tensors "
        "with `row`. Unset: 0.",
    )
    kv_on_host: bool | None = Field(
        default=None,
        description="Keep the KV cache in the machine's memory, where the CPU computes attention. Unset: beside its "
        "layers.",
    )
    mlock: bool | None = Field(
        default=None,
        description="Lock the weights in the machine's memory, so that they are never swapped out.",
    )
    mmap: bool | None = Field(
        default=None,
        description="Map the files into memory instead of reading them. Unset: where all devices support it. With "
        "`false`, models on the same file share its weights only within a process.",
    )
    max_seq_len: Annotated[int | Literal["auto"], BeforeValidator(read_context_length)] | None = Field(
        default=None,
        json_schema_extra={"wording": CONTEXT_WORDING},
        description="Context length in tokens; of embedding models and rerankers the longest input. Unset: what the "
        "model was trained on, at most 8192. `auto`: all that it was trained on. Both are shortened, down to 4096, "
        "where the models that are loaded at the start do not fit the memory together.",
    )
    max_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Requests that this model computes at the same time. Unset: `max_seqs` of `[runtime]`.",
    )

    @property
    def fixed_seq_len(self) -> int | None:
        """``max_seq_len`` where it is a number; None where the length is chosen."""
        return None if self.max_seq_len == "auto" else self.max_seq_len


class Multimodal(Table):
    """``[models.multimodal]``: limits of the images and the sound of requests."""

    max_num_images: int = Field(
        default=16, ge=1, le=256, description="Maximum number of images in a request, in all its messages."
    )
    max_num_audios: int = Field(
        default=8, ge=1, le=256, description="Maximum number of audio clips in a request, in all its messages."
    )
    max_audio_seconds: Annotated[float, BeforeValidator(read_duration)] = Field(
        default=600,
        ge=1,
        le=14_400,
        json_schema_extra={"wording": f"a number of seconds from 1 to 14400, or {DURATION_EXAMPLES}"},
        description="Longest audio clip in seconds. Its tokens must also fit the model's context.",
    )
    max_edge: int = Field(
        default=2048,
        ge=32,
        le=8192,
        description="Pixels of the longer side of an image; a larger one is scaled down. The projector scales it "
        "further, to what it was trained on.",
    )
    max_image_length: int | None = Field(
        default=None, ge=32, le=8192, description="mistral.rs's other name for `max_edge`; the smaller one counts."
    )

    @property
    def longest_edge(self) -> int:
        """Pixels of the longer side of an image, at most."""
        return min(self.max_edge, self.max_image_length or self.max_edge)


class Sampling(Table):
    """``[models.sampling]``: defaults for requests. Unset: the model's own default."""

    temperature: Temperature | None = Field(default=None, description="Randomness. `0` takes the likeliest token.")
    top_k: TopK | None = Field(default=None, description="Sample from the k most likely tokens. `0` is all.")
    top_p: TopP | None = Field(
        default=None, description="Sample from the most likely tokens that together have this probability."
    )
    min_p: MinP | None = Field(
        default=None,
        description="Drop tokens that are less likely than this part of the most likely one's probability.",
    )
    repetition_penalty: RepetitionPenalty | None = Field(
        default=None, description="Divides the logits of tokens that occurred before. `1` changes nothing."
    )
    presence_penalty: PresencePenalty | None = Field(
        default=None, description="Subtracted from the logit of every token that occurred in the answer."
    )
    frequency_penalty: FrequencyPenalty | None = Field(
        default=None, description="Subtracted from the logit of a token for each time it occurred in the answer."
    )
    seed: Seed | None = Field(default=None, description="Makes answers repeatable. Unset: a new seed each request.")


class Model(Table):
    """``[[models]]``: one model, on an engine of its own.

    Relative paths start at the folder that the validation context gives as ``base``, else at the working directory.
    """

    model_id: _Text = Field(
        description="The model: a path of a GGUF file or a model folder; a repository of the Hugging Face Hub, "
        "`org/name`, `org/name:Q4_K_M`, `hf.co/org/name` or its URL; or `ollama:name`, a model that Ollama has on this "
        "machine."
    )
    kind: Kind = Field(default="auto", description="What the model does. `auto` reads it from the model's files.")
    alias: _Text | None = Field(
        default=None,
        description="Id under which the model is listed. Unset: the name of the file without `.gguf`, the name of the "
        "folder, or `org/name`. `model_id` routes to the model, too.",
    )
    aliases: _List[_Text] = Field(default=(), description="Further names that route to the model. They are not listed.")
    dtype: Dtype = Field(
        default="auto", description="Type of weights that are not quantised. `auto`: as they were published."
    )
    chat_template: Annotated[Path, Strict(False)] | None = Field(
        default=None,
        description="Jinja file to use as chat template, relative to the TOML file. Unset: the model's own.",
    )
    tool_format: ToolFormatName | None = Field(
        default=None,
        description="How the model writes tool calls. Unset: recognised from its chat template.",
    )
    reasoning_format: ReasoningFormatName | None = Field(
        default=None,
        description="How the model marks its reasoning; `none`: it does not reason. Unset: recognised from its chat "
        "template.",
    )
    load: Load = Field(
        default="startup", description="When to load: before the server listens, or with the first request."
    )
    pinned: bool = Field(default=False, description="Never unload the model to make room for another one.")
    idle_unload_seconds: Annotated[float, BeforeValidator(read_duration)] | None = Field(
        default=None,
        ge=0,
        json_schema_extra={"wording": f"a number of seconds of at least 0, or {DURATION_EXAMPLES}"},
        description="Unload the model after this time without requests. Unset: never. A request's `keep_alive` takes "
        "its place.",
    )
    priority: int = Field(
        default=0,
        ge=-100,
        le=100,
        description="Waiting requests of models with a higher number go first. A request's header `X-Priority` takes "
        "its place. While they are answered, models with a lower number get hardly any of the device's time.",
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="The model's share of the device's time while several compute, relative to the others' weights.",
    )
    isolation: Isolation | None = Field(
        default=None,
        description="Where the model's engine runs: `auto`, `thread` or `process`. Unset: `isolation` of `[runtime]`.",
    )
    draft: _Text | None = Field(
        default=None,
        description="Id or alias of a smaller model of the same vocabulary, which drafts tokens that this one "
        "verifies: greedy answers stay the same, and are faster where the draft is often right. The weights are shared "
        "with that model.",
    )
    mcp: _List[_Text] | None = Field(
        default=None,
        description="Names of the MCP servers whose tools the model may call. Unset: all. `[]`: none.",
    )
    system: _Text | None = Field(
        default=None,
        description="System message of conversations that begin with none of their own. Unset: they have none.",
    )
    remote: Annotated[tuple[str, ...], BeforeValidator(read_addresses)] = Field(
        default=(),
        json_schema_extra={"wording": REMOTE_WORDING},
        description="Base URL of an OpenAI-compatible server that has the model, such as `http://host:1234/v1`, or "
        "several of them. Nothing is loaded here: requests go there. `model_id` is then only a name.",
    )
    remote_model: _Text | None = Field(
        default=None, description="Name of the model on the servers in `remote`. Unset: `model_id`."
    )
    api_key_env: _Text | None = Field(
        default=None,
        description="Environment variable with the API key for the servers in `remote`. Unset: no key is sent.",
    )
    remote_timeout_seconds: Annotated[float, BeforeValidator(read_duration)] = Field(
        default=300,
        ge=1,
        le=86_400,
        json_schema_extra={"wording": f"a number of seconds from 1 to 86400, or {DURATION_EXAMPLES}"},
        description="How long a server in `remote` may send nothing, before its answer and within it.",
    )
    quantization: Quantization = Field(default=Quantization(), description="Which weights to use.")
    format: Format = Field(default=Format(), description="Which files of the folder or repository.")
    device: Device = Field(default=Device(), description="Where the model runs and how long its context is.")
    multimodal: Multimodal = Field(default=Multimodal(), description="Limits of images and sound.")
    sampling: Sampling = Field(default=Sampling(), description="Sampling defaults of the model.")
    adapters: _List[Adapter] = Field(
        default=(), max_length=MAX_ADAPTERS, description="LoRA adapters that are served beside the model."
    )

    _reference: ModelReference = PrivateAttr()
    _short_id: str = PrivateAttr()
    _origin: Origin = PrivateAttr(default="configured")

    @field_validator("chat_template")
    @classmethod
    def _make_absolute(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else absolute(path, base_of(info.context))

    def model_post_init(self, context: object, /) -> None:
        """Resolve ``model_id`` while the base folder is known: only the validation context has it."""
        if self.remote:
            self._reference = ModelReference("remote", ", ".join(self.remote), self.model_id)
        else:
            self._reference = parse_model_reference(self.model_id, base_of(context))
        self._short_id = self._reference.id

    @property
    def reference(self) -> ModelReference:
        """What ``model_id`` means."""
        return self._reference

    @property
    def origin(self) -> Origin:
        """Who named the model: the configuration, a request that added it, or a search of this machine."""
        return self._origin

    def mark_origin(self, origin: Origin) -> None:
        """Note who named the model, before it becomes part of a configuration."""
        self._origin = origin

    @property
    def source(self) -> str:
        """Where the model comes from: an absolute path, ``org/name[@revision]``, ``ollama:name:tag``, or addresses."""
        return self._reference.source

    @property
    def is_remote(self) -> bool:
        """Whether other servers have the model, so that nothing of it is on this machine."""
        return bool(self.remote)

    @property
    def id(self) -> str:
        """The id under which the model is listed: its alias if it has one, else that of its reference."""
        return self.alias or self._short_id

    def list_as(self, short_id: str) -> None:
        """List the model under another id than its reference's, where that is another model's; an alias prevails."""
        self._short_id = short_id

    def adapter_id(self, adapter: Adapter) -> str:
        """Return the id under which the model with one of its adapters is listed."""
        return f"{self.id}{SEPARATOR}{adapter.name}"

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that routes to the model, without duplicates; the listed id first."""
        return tuple(dict.fromkeys((self.id, self.model_id, *self.aliases)))


def list_apart(models: Sequence[Model]) -> None:
    """List models without an alias under ids that differ, even if their files have the same name."""
    taken = {name for model in models for name in (model.alias, *model.aliases) if name is not None}
    unnamed = [model for model in models if model.alias is None]
    for model, short_id in zip(unnamed, unique_ids([model.reference for model in unnamed], taken), strict=True):
        model.list_as(short_id)
