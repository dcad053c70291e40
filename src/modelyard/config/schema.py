"""The top level of a configuration file and its tables, with their types, bounds, defaults and meanings.

The schema is the only place with defaults. Rules across tables are in ``rules.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetPydanticSchema,
    PlainSerializer,
    SecretStr,
    Strict,
    ValidationInfo,
    field_validator,
)

from modelyard.config.base import Items as _List
from modelyard.config.base import Table
from modelyard.config.base import Text as _Text
from modelyard.config.cluster import Cluster
from modelyard.config.counts import TOKENS_EXAMPLES, read_tokens
from modelyard.config.discover import Discover
from modelyard.config.hub import TOKEN_SOURCE_WORDING, check_sibling, check_token_source
from modelyard.config.mcp import Mcp
from modelyard.config.model import Model, list_apart
from modelyard.config.names import Command, Isolation, KvKeep, KvType
from modelyard.config.paths import absolute, base_of, own_cache
from modelyard.config.server import Server
from modelyard.config.sizes import (
    BUDGET_WORDING,
    DEVICE_BUDGETS_WORDING,
    GIB,
    SIZE_WORDING,
    read_budget,
    read_device_budget,
    read_names,
    read_size,
)

_DeviceBudget = Annotated[
    int | float, BeforeValidator(read_device_budget), Field(json_schema_extra={"wording": BUDGET_WORDING})
]
# Read as a table, and kept as pairs, because a configuration is immutable.
_DeviceBudgets = Annotated[
    tuple[tuple[str, int | float], ...],
    GetPydanticSchema(
        lambda _kind, handler: handler(
            Annotated[
                dict[str, _DeviceBudget],
                BeforeValidator(read_names),
                AfterValidator(lambda budgets: tuple(budgets.items())),
                PlainSerializer(dict),
            ]
        )
    ),
]


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
        "in one step, where that is faster. Edits and quotations are generated faster, and no answer of 100 tokens or "
        "more takes over 3 % longer; the text stays the same unless two tokens are nearly equally likely.",
    )
    kv_type: KvType = Field(
        default="f16",
        description="Type of the numbers in the KV cache. `q8_0` takes about half the memory, and changes answers a "
        "little.",
    )
    flash_attn: bool | None = Field(
        default=None,
        description="Flash attention. Unset: where the device supports it, but on a CPU not for heads of "
        "at most 64 values, which are faster without. `q8_0` needs it.",
    )
    batch_tokens: Annotated[int, Field(ge=32, le=8192), BeforeValidator(read_tokens)] = Field(
        default=512,
        json_schema_extra={"wording": f"a whole number from 32 to 8192, or {TOKENS_EXAMPLES}"},
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
        "server that uses no accelerator, or may use one of another machine, else on threads. A model that crashed "
        "gets a process in any case, until it has served for an hour, and so does one whose `trial` is switched off.",
    )
    mcp_config: Annotated[Path, Strict(False)] | None = Field(
        default=None,
        description="JSON file with further MCP servers, beside those of `[[mcp.servers]]`: mistral.rs's, or the "
        "`mcpServers` of other programs. Relative to the TOML file. Unset: the file that the environment variable "
        "`MCP_CONFIG_PATH` names, if it is set.",
    )

    @field_validator("mcp_config")
    @classmethod
    def _make_absolute(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else absolute(path, base_of(info.context))


class Memory(Table):
    """``[memory]``: how much all models may take together, and what outlives an unload."""

    budget: Annotated[int | float, BeforeValidator(read_budget)] | None = Field(
        default=None,
        json_schema_extra={"wording": BUDGET_WORDING},
        description='Memory that all loaded models may take: a size such as `"16GiB"`, or a part of the machine\'s '
        'memory such as `"50%"` or `0.5`. Unset: 80 % of what is free at the start.',
    )
    devices: _DeviceBudgets = Field(
        default=(),
        json_schema_extra={"wording": DEVICE_BUDGETS_WORDING, "default": {}},
        description="Memory of each device that loaded models may take, by the device's name or number, as `modelyard "
        "doctor` lists them: a size, or a part of the device's memory. Of one that is not named: what is free, less "
        "3 % of its memory, and at least 256 MiB.",
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
        json_schema_extra={"default": "cache", "wording": TOKEN_SOURCE_WORDING},
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
    discover: Discover = Field(default=Discover(), description="Where further models are looked for.")
    mcp: Mcp = Field(default=Mcp(), description="The tools that models call while they answer.")
    cluster: Cluster = Field(
        default=Cluster(), description="How `modelyard deploy` spreads the models over the nodes of a Ray cluster."
    )
    models: _List[Model] = Field(default=(), description="The models, one table each.")

    def model_post_init(self, context: object, /) -> None:  # noqa: ARG002
        """List models whose files have the same name under ids that differ."""
        list_apart(self.models)
