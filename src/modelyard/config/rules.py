"""The rules that hold across models, and across the keys of the server and of the runtime.

They are pure functions of parts of a configuration that fit the schema; each returns its problems, with the locations
of all values that they depend on. Models are passed with their number in the file, counted from 1, because faulty
models may be left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelyard.config.keys import api_key_name, clashing_names, names_of_tables
from modelyard.config.tables import label
from modelyard.config.wording import did_you_mean, shown
from modelyard.errors.configuration import ConfigProblem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelyard.config.model import Model
    from modelyard.config.schema import Runtime
    from modelyard.config.server import Server
    from modelyard.errors.configuration import Location

MAX_SEQUENCES: Final = 256
"""Maximum number of sequences in a llama.cpp context."""

RESERVED_NAME: Final = "default"
"""The name by which requests address the default model."""


def no_models(models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Require at least one model."""
    return [] if models else [ConfigProblem("No models: name at least one in a [[models]] table.")]


def shared_names(models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Require that each id, alias and model_id routes to one model.

    Models with different aliases may have the same model_id: the same weights, served in two ways.
    """
    owners: dict[str, list[int]] = {}
    for number, model in models.items():
        for name in model.names:
            owners.setdefault(name, []).append(number)
    problems = []
    for name, numbers in owners.items():
        if len(numbers) < 2 or _is_common_model_id(name, [models[number] for number in numbers]):
            continue
        places = [_place_of_name(number, models[number], name) for number in numbers]
        problems.append(
            ConfigProblem(
                f"The name {shown(name)} belongs to more than one model: "
                f"{' and '.join(_label(number, models[number]) for number in numbers)}.",
                "Give each an alias of its own.",
                location=places[-1],
                related=tuple(places[:-1]),
            )
        )
    return problems


def _is_common_model_id(name: str, owners: Sequence[Model]) -> bool:
    """Whether ``name`` is the model_id of all owners, and at most one of them is listed under it."""
    return all(model.model_id == name for model in owners) and sum(model.alias is None for model in owners) <= 1


def _place_of_name(number: int, model: Model, name: str) -> Location:
    """Return where the model gets that one of its names from."""
    table: Location = ("models", number - 1)
    if model.alias == name:
        return (*table, "alias")
    if name in model.aliases:
        return (*table, "aliases", model.aliases.index(name))
    return (*table, "model_id")


def reserved_names(models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Refuse models with the name that stands for the default model."""
    return [
        ConfigProblem(
            f"the name {shown(RESERVED_NAME)} is reserved for the default model.",
            "Choose another one, and name the model in default_model_id.",
            table=_label(number, model),
            location=_place_of_name(number, model, RESERVED_NAME),
        )
        for number, model in models.items()
        if RESERVED_NAME in model.names
    ]


def unknown_default(default_model_id: str | None, models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Require that ``default_model_id`` is a name of one of the models."""
    names = list(dict.fromkeys(name for model in models.values() for name in model.names))
    if default_model_id is None or default_model_id in names:
        return []
    return [
        ConfigProblem(
            f"default_model_id {shown(default_model_id)} is not the id or an alias of any model.",
            did_you_mean(default_model_id, names) or _known(names),
            location=("default_model_id",),
        )
    ]


def unknown_drafts(models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Require that ``draft`` is a name of another model."""
    names = list(dict.fromkeys(name for model in models.values() for name in model.names))
    problems = []
    for number, model in models.items():
        where, location = _label(number, model), ("models", number - 1, "draft")
        if model.draft in model.names:
            problems.append(
                ConfigProblem(
                    "draft names the model itself.", "Name a smaller one, or none.", table=where, location=location
                )
            )
        elif model.draft is not None and model.draft not in names:
            known = did_you_mean(model.draft, names) or _known([name for name in names if name not in model.names])
            problem = f"draft {shown(model.draft)} is not the id or an alias of any model."
            problems.append(ConfigProblem(problem, known, table=where, location=location))
    return problems


def too_many_sequences(runtime: Runtime) -> list[ConfigProblem]:
    """Bound running requests and kept prompts together, because they share the sequences of one context."""
    total = runtime.max_seqs + runtime.prefix_cache_n
    if total <= MAX_SEQUENCES:
        return []
    return [
        _runtime_problem(
            f"max_seqs + prefix_cache_n may be at most {MAX_SEQUENCES}, "
            f"not {runtime.max_seqs} + {shown(runtime.prefix_cache_n)}.",
            "prefix_cache_n",
            "max_seqs",
        )
    ]


def unfit_batch(runtime: Runtime) -> list[ConfigProblem]:
    """Require that a step has room for a token of every running sequence."""
    if runtime.batch_tokens >= runtime.max_seqs:
        return []
    return [
        _runtime_problem(
            f"batch_tokens ({runtime.batch_tokens}) must be at least max_seqs ({runtime.max_seqs}): every running "
            "request has a token in each step.",
            "batch_tokens",
            "max_seqs",
        )
    ]


def unfit_batch_size(runtime: Runtime, models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Apply the bounds of ``max_seqs`` to ``max_batch_size``, which takes its place."""
    problems = []
    for number, model in models.items():
        size = model.device.max_batch_size
        if size is None:
            continue
        named = f"max_batch_size ({size})"
        bounds = []
        if size + runtime.prefix_cache_n > MAX_SEQUENCES:
            sum_of = f"{named} and prefix_cache_n ({shown(runtime.prefix_cache_n)})"
            bounds.append(("prefix_cache_n", f"{sum_of} may be at most {MAX_SEQUENCES}."))
        if size > runtime.batch_tokens:
            bound = f"{named} may be at most batch_tokens ({runtime.batch_tokens}): every running request has a token "
            bounds.append(("batch_tokens", f"{bound}in each step."))
        problems += [
            ConfigProblem(
                message,
                table=label(("models", "device"), number, model.model_id),
                location=("models", number - 1, "device", "max_batch_size"),
                related=(("runtime", key),),
            )
            for key, message in bounds
        ]
    return problems


def kv_type_without_flash(runtime: Runtime) -> list[ConfigProblem]:
    """Require flash attention for a quantised KV cache: only there does llama.cpp read quantised values."""
    if runtime.kv_type == "f16" or runtime.flash_attn is not False:
        return []
    problem = f'kv_type "{runtime.kv_type}" needs flash attention: leave flash_attn unset, or set it to true.'
    return [_runtime_problem(problem, "flash_attn", "kv_type")]


def _runtime_problem(message: str, key: str, other: str) -> ConfigProblem:
    return ConfigProblem(message, table="[runtime]", location=("runtime", key), related=(("runtime", other),))


def pinned_but_idle(models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Refuse models that are both pinned and unloaded when idle."""
    return [
        ConfigProblem(
            "pinned and idle_unload_seconds exclude each other.",
            "Keep one of them.",
            table=_label(number, model),
            location=("models", number - 1, "idle_unload_seconds"),
            related=(("models", number - 1, "pinned"),),
        )
        for number, model in models.items()
        if model.pinned and model.idle_unload_seconds is not None
    ]


def unusable_keys(server: Server) -> list[ConfigProblem]:
    """Require that each key is written in one place, and has a name of its own."""
    problems = [
        ConfigProblem(
            "write either key or key_env.",
            table=label(("server", "keys"), number),
            location=("server", "keys", number - 1, "key" if key.key is not None else "key_env"),
            related=(("server", "keys", number - 1, "key_env"), ("server", "keys", number - 1, "key")),
        )
        for number, key in enumerate(server.keys, 1)
        if (key.key is None) == (key.key_env is None)
    ]
    api_keys = {api_key_name(number) for number in range(1, len(server.api_keys) + 1)}
    names = names_of_tables(server)
    for name, message in clashing_names(names, api_keys):
        *others, last = (("server", "keys", index, "name") for index, other in enumerate(names) if other == name)
        problems.append(ConfigProblem(message, location=last, related=tuple(others)))
    return problems


def unusable_tls(server: Server) -> list[ConfigProblem]:
    """Refuse a private key without a certificate."""
    if server.ssl_keyfile is None or server.ssl_certfile is not None:
        return []
    return [
        ConfigProblem(
            "ssl_keyfile needs ssl_certfile, the certificate that the key belongs to.",
            table="[server]",
            location=("server", "ssl_keyfile"),
            related=(("server", "ssl_certfile"),),
        )
    ]


def unknown_models_of_keys(server: Server, models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Require that the models of each key exist."""
    names = [name for model in models.values() for name in model.names]
    return [
        ConfigProblem(
            f"models: {shown(name)} is no model.",
            did_you_mean(name, names) or _known([model.id for model in models.values()]),
            table=label(("server", "keys"), number),
            location=("server", "keys", number - 1, "models", index),
        )
        for number, key in enumerate(server.keys, 1)
        for index, name in enumerate(key.models)
        if name not in names
    ]


def processes_on_windows(runtime: Runtime, models: Mapping[int, Model], platform: str) -> list[ConfigProblem]:
    """Refuse isolated engines on Windows, which lacks the shared memory and locks that they need."""
    if platform != "win32":
        return []
    asking: list[tuple[str, Location]] = [("[runtime]", ("runtime",))] if runtime.isolation == "process" else []
    asking += [
        (_label(number, model), ("models", number - 1))
        for number, model in models.items()
        if model.isolation == "process"
    ]
    return [
        ConfigProblem(
            'isolation "process" does not work on Windows.',
            'Set it to "thread", or remove it.',
            table=where,
            location=(*location, "isolation"),
        )
        for where, location in asking
    ]


def _label(number: int, model: Model) -> str:
    return label(("models",), number, model.model_id)


def _known(names: list[str]) -> str:
    return f"Known: {', '.join(names)}." if names else ""
