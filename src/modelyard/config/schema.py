"""The tables and keys of a configuration file, with their types, bounds, defaults and meanings.

This is the only place with defaults. Numbers that a request may carry, too (sampling), are named types, so that the
HTTP schema refuses exactly what this one refuses. Rules across tables are in ``rules.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    Strict,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from modelyard.config.base import Items as _List
from modelyard.config.base import Table
from modelyard.config.base import Text as _Text
from modelyard.config.device_layers import DEVICE_LAYERS_WORDING, read_device_layers
from modelyard.config.hub import check_sibling, check_token_source
from modelyard.config.model_reference import ModelReference, parse_model_reference, unique_ids
from modelyard.config.paths import absolute, base_of, own_cache
from modelyard.config.server import Server
from modelyard.config.sizes import BUDGET_WORDING, GIB, SIZE_WORDING, read_budget, read_size

Command = Literal["serve", "run"]
Kind = Literal["auto", "text", "embedding", "rerank", "multimodal", "diffusion", "speech"]
# Names in modelyard.engine.formats.registry and modelyard.engine.formats.reasoning, which are above the configuration.
ToolFormat = Literal[
    "apertus",
    "apriel",
    "command",
    "command-r",
    "deepseek",
    "deepseek-v3.1",
    "deepseek-v3.2",
    "deepseek-v4",
    "deepseek-v4.1",
    "function-gemma",
    "functionary",
    "gemma",
    "generic",
    "gigachat",
    "gigachat-3",
    "glm",
    "granite",
    "harmony",
    "hermes",
    "hunyuan",
    "kimi-k2",
    "kimi-k3",
    "lfm2",
    "llama3",
    "llama4",
    "minicpm",
    "minimax-m1",
    "minimax-m2",
    "minimax-m3",
    "mistral",
    "mistral-args",
    "mistral-call-id",
    "muse",
    "nemotron",
    "olmo3",
    "phi",
    "qwen3-coder",
    "seed",
    "solar",
]
ReasoningFormat = Literal[
    "none",
    "apertus",
    "apriel",
    "command",
    "gemma",
    "hunyuan",
    "kimi-k3",
    "minimax",
    "mistral",
    "seed",
    "solar",
    "think",
]

Load = Literal["startup", "on-demand"]
Isolation = Literal["auto", "thread", "process"]
KvKeep = Literal["off", "memory", "disk"]
KvType = Literal["f16", "q8_0"]
Dtype = Literal["auto", "bf16", "f16", "f32"]
FileFormat = Literal["plain", "gguf", "ggml"]

_INT32_MAX = 2**31 - 1

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


class Runtime(Table):
    """``[runtime]``: how many sequences each engine holds. ``max_seqs + prefix_cache_n`` may be at most 256."""

    max_seqs: int = Field(
        default=32, ge=1, le=256, description="Requests that one model computes at the same time; further ones wait."
    )
    prefix_cache_n: int = Field(
        default=16,
        ge=0,
        description="Finished prompts that one model keeps, to reuse their prefixes. `0` keeps none. Together with "
        "`max_seqs` at most 256.",
    )
    prompt_lookup: bool = Field(
        default=True,
        description="Speculative decoding by prompt lookup: draft the next tokens from earlier text, and verify them "
        "in one step, where that is faster. Edits and quotations are generated faster; the text stays the same unless "
        "two tokens are nearly equally likely.",
    )
    kv_type: KvType = Field(
        default="f16",
        description="Type of the numbers in the KV cache. `q8_0` takes about half the memory, and changes answers a "
        "little.",
    )
    flash_attn: bool | None = Field(
        default=None, description="Flash attention. Unset: where the device supports it. `q8_0` needs it."
    )
    batch_tokens: int = Field(
        default=512,
        ge=32,
        le=8192,
        description="Maximum number of tokens in a step: how much of a prompt is computed at once, and how much memory "
        "that takes.",
    )
    trial: bool = Field(
        default=True,
        description="Serve each model once in a process of its own before it is served for the first time: llama.cpp "
        "ends its process on some files, and with it all models. The outcome is kept for the next start.",
    )
    isolation: Isolation = Field(
        default="auto",
        description="Where engines run: `thread`, all in the server's process, or `process`, each in one of its own, "
        "so that one that crashes ends no other, and its requests go on (not on Windows). `auto`: in processes for a "
        "server that uses no accelerator, else on threads. A model that crashed gets a process in any case, until it "
        "has served for an hour, and so does one whose `trial` is switched off.",
    )


class Quantization(Table):
    """``[models.quantization]``: which weights to use. At most one of the three keys."""

    quant: _LowerText | None = Field(
        default=None,
        description="A number of bits (`2`, `3`, `4`, `5`, `6`, `8`) or a type such as `q4_k_m`: a file of that type "
        "in the repository or in one of `[hub] siblings`, else full precision, quantised on this machine. `auto` is "
        "the best that fits the memory budget.",
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
    device_layers: Annotated[tuple[int, ...], BeforeValidator(read_device_layers)] | None = Field(
        default=None,
        json_schema_extra={"wording": DEVICE_LAYERS_WORDING},
        description='Layers on accelerators: a number for the first one, or `["0:20", "1:12"]`, 20 on device 0 and 12 '
        "on device 1; the others are computed by the CPU. Unset: all, if llama.cpp was built for one. Untested.",
    )
    max_seq_len: int | None = Field(
        default=None,
        ge=1,
        le=_INT32_MAX,
        description="Context length in tokens; of embedding models and rerankers the longest input. Unset: chosen by "
        "the engine.",
    )
    max_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Requests that this model computes at the same time. Unset: `max_seqs` of `[runtime]`.",
    )


class Multimodal(Table):
    """``[models.multimodal]``: limits of the images and the sound of requests."""

    max_num_images: int = Field(
        default=16, ge=1, le=256, description="Maximum number of images in a request, in all its messages."
    )
    max_num_audios: int = Field(
        default=8, ge=1, le=256, description="Maximum number of audio clips in a request, in all its messages."
    )
    max_audio_seconds: float = Field(
        default=600,
        ge=1,
        le=14_400,
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
    tool_format: ToolFormat | None = Field(
        default=None,
        description="How the model writes tool calls. Unset: recognised from its chat template.",
    )
    reasoning_format: ReasoningFormat | None = Field(
        default=None,
        description="How the model marks its reasoning; `none`: it does not reason. Unset: recognised from its chat "
        "template.",
    )
    load: Load = Field(
        default="startup", description="When to load: before the server listens, or with the first request."
    )
    pinned: bool = Field(default=False, description="Never unload the model to make room for another one.")
    idle_unload_seconds: float | None = Field(
        default=None,
        ge=0,
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
    quantization: Quantization = Field(default=Quantization(), description="Which weights to use.")
    format: Format = Field(default=Format(), description="Which files of the folder or repository.")
    device: Device = Field(default=Device(), description="Where the model runs and how long its context is.")
    multimodal: Multimodal = Field(default=Multimodal(), description="Limits of images and sound.")
    sampling: Sampling = Field(default=Sampling(), description="Sampling defaults of the model.")

    _reference: ModelReference = PrivateAttr()
    _short_id: str = PrivateAttr()

    @field_validator("chat_template")
    @classmethod
    def _make_absolute(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else absolute(path, base_of(info.context))

    def model_post_init(self, context: object, /) -> None:
        """Resolve ``model_id`` while the base folder is known: only the validation context has it."""
        self._reference = parse_model_reference(self.model_id, base_of(context))
        self._short_id = self._reference.id

    @property
    def reference(self) -> ModelReference:
        """What ``model_id`` means."""
        return self._reference

    @property
    def source(self) -> str:
        """Where the model comes from: an absolute path, ``org/name[@revision]``, or ``ollama:name:tag``."""
        return self._reference.source

    @property
    def id(self) -> str:
        """The id under which the model is listed: its alias if it has one, else that of its reference."""
        return self.alias or self._short_id

    def list_as(self, short_id: str) -> None:
        """List the model under another id than its reference's, where that is another model's; an alias prevails."""
        self._short_id = short_id

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that routes to the model, without duplicates; the listed id first."""
        return tuple(dict.fromkeys((self.id, self.model_id, *self.aliases)))


class Memory(Table):
    """``[memory]``: how much all models may take together, and what outlives an unload."""

    budget: Annotated[int | float, BeforeValidator(read_budget)] | None = Field(
        default=None,
        json_schema_extra={"wording": BUDGET_WORDING},
        description='Memory that all loaded models may take: a size such as `"16GiB"`, or a part of the machine\'s '
        "memory such as `0.5`. Unset: 80 % of what is free at the start.",
    )
    kv_keep: KvKeep = Field(
        default="off",
        description="Where prompts of a model are kept beyond its unload, so that conversations go on without being "
        "computed again.",
    )
    kv_keep_bytes: Annotated[int, BeforeValidator(read_size)] = Field(
        default=GIB,
        json_schema_extra={"wording": SIZE_WORDING, "default": "1GiB"},
        description="Maximum size of kept prompts: of each model in memory, of all together on disk. A size such as "
        '`"2GiB"`.',
    )
    kv_dir: Annotated[Path, Strict(False)] | None = Field(
        default=None,
        description="Folder of kept prompts on disk, relative to the TOML file. Unset: `modelyard/kv` in the user's "
        "cache folder.",
    )

    @field_validator("kv_dir")
    @classmethod
    def _make_absolute(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else absolute(path, base_of(info.context))

    @property
    def kv_folder(self) -> Path:
        """Where prompts are kept on disk."""
        return self.kv_dir or own_cache() / "kv"


class Hub(Table):
    """``[hub]``: how models that are named by a Hugging Face id are found and downloaded."""

    siblings: _List[Annotated[str, Field(min_length=1), AfterValidator(check_sibling)]] = Field(
        default=(
            "mistralrs-community/{name}-UQFF",
            "{repo}-GGUF",
            "ggml-org/{name}-GGUF",
            "unsloth/{name}-GGUF",
            "bartowski/{organisation}_{name}-GGUF",
            "bartowski/{name}-GGUF",
            "lmstudio-community/{name}-GGUF",
        ),
        description="Repositories in which `quant` looks for a published file, in this order. Each must declare the "
        "model as its base. `{repo}` is the id, `{organisation}` and `{name}` its two parts.",
    )
    token_source: SecretStr = Field(
        default=SecretStr("cache"),
        json_schema_extra={"default": "cache"},
        description="Where the hub's token comes from: `cache` (the login of `hf auth login`, or HF_TOKEN), "
        "`env:VARIABLE`, `path:FILE` (relative to the TOML file), `literal:TOKEN`, or `none`.",
    )

    @field_validator("token_source")
    @classmethod
    def _check_token_source(cls, source: SecretStr, info: ValidationInfo) -> SecretStr:
        check_token_source(source.get_secret_value())
        kind, _, value = source.get_secret_value().partition(":")
        return SecretStr(f"path:{absolute(value, base_of(info.context))}") if kind == "path" else source


class Config(Table):
    """A whole configuration: the top level of a TOML file, or of what the command line describes."""

    command: Command = Field(default="serve", description="What to start: the HTTP server, or a chat in the terminal.")
    default_model_id: _Text | None = Field(
        default=None,
        description="Id or alias of the model for requests that name none, or `default`. Unset: the only model, if "
        "there is just one.",
    )
    server: Server = Field(default=Server(), description="Where the HTTP server listens, and to whom.")
    runtime: Runtime = Field(default=Runtime(), description="How many sequences each engine holds.")
    memory: Memory = Field(default=Memory(), description="How much memory the models may take.")
    hub: Hub = Field(default=Hub(), description="Where models come from that are named by a Hugging Face id.")
    models: _List[Model] = Field(default=(), description="The models, one table each.")

    def model_post_init(self, context: object, /) -> None:  # noqa: ARG002
        """List models whose files have the same name under ids that differ."""
        list_apart(self.models)


def list_apart(models: Sequence[Model]) -> None:
    """List models without an alias under ids that differ, even if their files have the same name."""
    taken = {name for model in models for name in (model.alias, *model.aliases) if name is not None}
    unnamed = [model for model in models if model.alias is None]
    for model, short_id in zip(unnamed, unique_ids([model.reference for model in unnamed], taken), strict=True):
        model.list_as(short_id)
