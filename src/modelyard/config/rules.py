"""The rules that hold across keys and models.

They are pure functions of parts of a configuration that fit the schema; each returns one sentence for each problem.
Models are passed with their number in the file, counted from 1, because faulty models may be left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelyard.config.keys import api_key_name, clashing_names, names_of_tables
from modelyard.config.tables import label
from modelyard.config.wording import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from modelyard.config.schema import Config, Isolation, Model, Runtime
    from modelyard.config.server import Server

ISQ_NAMES: Final = (
    *("2", "3", "4", "5", "6", "8"),
    *("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q8_1"),
    *("q2k", "q3k", "q4k", "q5k", "q6k", "q8k"),
    *("hqq4", "hqq8", "fp8", "afq2", "afq3", "afq4", "afq6", "afq8", "f8q8", "mxfp4"),
)
"""What ``isq`` accepts: a number of bits, or a type of mistral.rs."""

GGUF_TYPES: Final = (
    *("q2_k", "q2_k_s", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k"),
    *("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq3_xxs", "iq3_xs", "iq3_s", "iq3_m"),
    *("iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "f16", "bf16", "f32"),
)
"""Types as published GGUF files are labelled. Source: llama.cpp, tools/quantize/quantize.cpp."""

QUANT_NAMES: Final = ("auto", *ISQ_NAMES, *GGUF_TYPES)
"""What ``quant`` accepts."""

MAX_SEQUENCES: Final = 256
"""Maximum number of sequences in a llama.cpp context."""

RESERVED_NAME: Final = "default"
"""The name by which requests address the default model."""


def no_models(models: Mapping[int, Model]) -> list[str]:
    """Require at least one model."""
    return [] if models else ["No models: name at least one in a [[models]] table."]


def shared_names(models: Mapping[int, Model]) -> list[str]:
    """Require that each id, alias and model_id routes to one model.

    Models with different aliases may have the same model_id: the same weights, served in two ways.
    """
    owners: dict[str, list[int]] = {}
    for number, model in models.items():
        for name in model.names:
            owners.setdefault(name, []).append(number)
    return [
        f"The name {shown(name)} belongs to more than one model: "
        f"{' and '.join(_label(number, models[number]) for number in numbers)}. "
        "Give each an alias of its own."
        for name, numbers in owners.items()
        if len(numbers) > 1 and not _is_common_model_id(name, [models[number] for number in numbers])
    ]


def _is_common_model_id(name: str, owners: Sequence[Model]) -> bool:
    """Whether ``name`` is the model_id of all owners, and at most one of them is listed under it."""
    return all(model.model_id == name for model in owners) and sum(model.alias is None for model in owners) <= 1


def reserved_names(models: Mapping[int, Model]) -> list[str]:
    """Refuse models with the name that stands for the default model."""
    return [
        f"{_label(number, model)}: the name {shown(RESERVED_NAME)} is reserved for the default model. "
        "Choose another one, and name the model in default_model_id."
        for number, model in models.items()
        if RESERVED_NAME in model.names
    ]


def unknown_default(default_model_id: str | None, models: Mapping[int, Model]) -> list[str]:
    """Require that ``default_model_id`` is a name of one of the models."""
    names = list(dict.fromkeys(name for model in models.values() for name in model.names))
    if default_model_id is None or default_model_id in names:
        return []
    return [
        f"default_model_id {shown(default_model_id)} is not the id or an alias of any model."
        f"{did_you_mean(default_model_id, names) or _known(names)}"
    ]


def unknown_drafts(models: Mapping[int, Model]) -> list[str]:
    """Require that ``draft`` is a name of another model."""
    names = list(dict.fromkeys(name for model in models.values() for name in model.names))
    problems = []
    for number, model in models.items():
        if model.draft in model.names:
            problems.append(f"{_label(number, model)}: draft names the model itself. Name a smaller one, or none.")
        elif model.draft is not None and model.draft not in names:
            known = did_you_mean(model.draft, names) or _known([name for name in names if name not in model.names])
            problems.append(
                f"{_label(number, model)}: draft {shown(model.draft)} is not the id or an alias of any model.{known}"
            )
    return problems


def mixed_cpu(models: Mapping[int, Model]) -> list[str]:
    """Require that all models that set ``cpu`` set it to the same value."""
    on, off = (
        [_label(number, model) for number, model in models.items() if model.device.cpu is value]
        for value in (True, False)
    )
    if not on or not off:
        return []
    return [
        "cpu must be the same in every [models.device] that sets it: "
        f"it is true in {', '.join(on)} and false in {', '.join(off)}."
    ]


def bad_quantisation(models: Mapping[int, Model]) -> list[str]:
    """Require that ``quant`` and ``isq`` are known names, and that only one way to the weights is chosen."""
    problems = []
    for number, model in models.items():
        where = label(("models", "quantization"), number, model.model_id)
        chosen = model.quantization
        for key, name, known in (("quant", chosen.quant, QUANT_NAMES), ("isq", chosen.isq, ISQ_NAMES)):
            if name is not None and name not in known:
                problems.append(
                    f"{where}: {key} {shown(name)} is not a known quantisation. Choose one of {', '.join(known)}."
                )
        given = [key for key in ("quant", "isq", "from_uqff") if getattr(chosen, key) is not None]
        if len(given) > 1:
            problems.append(f"{where}: {' and '.join(given)} exclude each other. Keep one of them.")
        if given and (named := _named_weights(model)):
            problems.append(f"{where}: {given[0]} and {named} exclude each other. Keep one of them.")
    return problems


def _named_weights(model: Model) -> str:
    """Return what ``model_id`` itself says about the weights, for a message; "" if that is nothing but ``quant``."""
    reference = model.reference
    if reference.file is not None:
        return f"the file {shown(reference.file)} in model_id"
    if reference.quant in (None, model.quantization.quant):
        return ""
    return f"the tag {shown(reference.quant)} in model_id"


def bad_format(models: Mapping[int, Model]) -> list[str]:
    """Require that the keys of ``[models.format]`` are compatible with each other and with the way to the weights."""
    return [
        f"{label(('models', 'format'), number, model.model_id)}: {problem}"
        for number, model in models.items()
        for problem in _format_problems(model)
    ]


def _format_problems(model: Model) -> list[str]:
    given, names = model.format, model.format.quantized_files
    if given.format == "ggml" or any(name.lower().endswith((".ggml", ".bin")) for name in names):
        return ["GGML is the format before GGUF, which llama.cpp no longer reads. Name a GGUF file of the model."]
    problems = []
    if given.quantized_file is not None and not names:
        problems.append("quantized_file names no file. Name a GGUF file, or remove it.")
    for key, name in (*(("quantized_file", name) for name in names), ("mmproj", given.mmproj)):
        if name is not None and not name.lower().endswith(".gguf"):
            problems.append(f"{key} {shown(name)} must be a GGUF file: its name must end in .gguf.")
    if given.format == "plain":
        problems += [
            f'format "plain" is full precision in safetensors, and {key} is GGUF. Keep one of them.'
            for key in ("quantized_file", "mmproj")
            if getattr(given, key) is not None
        ]
        if model.source.lower().endswith(".gguf"):
            problems.append(f'format "plain" is full precision in safetensors, and {shown(model.model_id)} is GGUF.')
    if names and (model.source.lower().endswith(".gguf") or model.reference.file is not None):
        problems.append("quantized_file names a file of a folder or repository, and model_id names a file already.")
    problems += [
        f"quantized_file and {key} exclude each other: the file that is named is served as it is. Keep one of them."
        for key in ("quant", "isq", "from_uqff")
        if names and getattr(model.quantization, key) is not None
    ]
    if given.mmproj is not None and model.kind in ("embedding", "rerank"):
        problems.append(f"mmproj is for models that see or hear, not for kind = '{model.kind}'. Keep one of them.")
    return problems


def layers_without_device(models: Mapping[int, Model]) -> list[str]:
    """Refuse ``device_layers`` where ``cpu`` keeps all models on the CPU."""
    on_cpu = next((_label(number, model) for number, model in models.items() if model.device.cpu), None)
    return [
        f"{label(('models', 'device'), number, model.model_id)}: device_layers gives layers to an accelerator, and "
        f"cpu = true ({on_cpu}) keeps all models on the CPU. Keep one of them."
        for number, model in models.items()
        if on_cpu is not None and any(model.device.device_layers or ())
    ]


def too_many_sequences(runtime: Runtime) -> list[str]:
    """Bound running requests and kept prompts together, because they share the sequences of one context."""
    total = runtime.max_seqs + runtime.prefix_cache_n
    if total <= MAX_SEQUENCES:
        return []
    return [
        f"[runtime]: max_seqs + prefix_cache_n may be at most {MAX_SEQUENCES}, "
        f"not {runtime.max_seqs} + {shown(runtime.prefix_cache_n)}."
    ]


def unfit_batch(runtime: Runtime) -> list[str]:
    """Require that a step has room for a token of every running sequence."""
    if runtime.batch_tokens >= runtime.max_seqs:
        return []
    return [
        f"[runtime]: batch_tokens ({runtime.batch_tokens}) must be at least max_seqs ({runtime.max_seqs}): every "
        "running request has a token in each step."
    ]


def unfit_batch_size(runtime: Runtime, models: Mapping[int, Model]) -> list[str]:
    """Apply the bounds of ``max_seqs`` to ``max_batch_size``, which takes its place."""
    problems = []
    for number, model in models.items():
        size = model.device.max_batch_size
        where = f"{label(('models', 'device'), number, model.model_id)}: max_batch_size ({size})"
        if size is not None and size + runtime.prefix_cache_n > MAX_SEQUENCES:
            problems.append(f"{where} and prefix_cache_n ({runtime.prefix_cache_n}) may be at most {MAX_SEQUENCES}.")
        if size is not None and size > runtime.batch_tokens:
            problems.append(
                f"{where} may be at most batch_tokens ({runtime.batch_tokens}): every running request has a token in "
                "each step."
            )
    return problems


def kv_type_without_flash(runtime: Runtime) -> list[str]:
    """Require flash attention for a quantised KV cache: only there does llama.cpp read quantised values."""
    if runtime.kv_type == "f16" or runtime.flash_attn is not False:
        return []
    return [f'[runtime]: kv_type "{runtime.kv_type}" needs flash attention: leave flash_attn unset, or set it to true.']


def pinned_but_idle(models: Mapping[int, Model]) -> list[str]:
    """Refuse models that are both pinned and unloaded when idle."""
    return [
        f"{_label(number, model)}: pinned and idle_unload_seconds exclude each other. Keep one of them."
        for number, model in models.items()
        if model.pinned and model.idle_unload_seconds is not None
    ]


def unusable_keys(server: Server) -> list[str]:
    """Require that each key is written in one place, and has a name of its own."""
    return [
        f"{label(('server', 'keys'), number)}: write either key or key_env."
        for number, key in enumerate(server.keys, 1)
        if (key.key is None) == (key.key_env is None)
    ] + clashing_names(names_of_tables(server), {api_key_name(number) for number in range(1, len(server.api_keys) + 1)})


def unusable_tls(server: Server) -> list[str]:
    """Refuse a private key without a certificate."""
    if server.ssl_keyfile is not None and server.ssl_certfile is None:
        return ["[server]: ssl_keyfile needs ssl_certfile, the certificate that the key belongs to."]
    return []


def unknown_models_of_keys(server: Server, models: Mapping[int, Model]) -> list[str]:
    """Require that the models of each key exist."""
    names = [name for model in models.values() for name in model.names]
    return [
        f"{label(('server', 'keys'), number)}: models: {shown(name)} is no model."
        + (did_you_mean(name, names) or _known([model.id for model in models.values()]))
        for number, key in enumerate(server.keys, 1)
        for name in key.models
        if name not in names
    ]


def processes_on_windows(runtime: Runtime, models: Mapping[int, Model], platform: str) -> list[str]:
    """Refuse isolated engines on Windows, which lacks the shared memory and locks that they need."""
    if platform != "win32":
        return []
    problem = 'isolation "process" does not work on Windows. Set it to "thread", or remove it.'
    asking = [_label(number, model) for number, model in models.items() if model.isolation == "process"]
    return [f"{where}: {problem}" for where in (*(["[runtime]"] if runtime.isolation == "process" else []), *asking)]


def effective_cpu(models: Iterable[Model]) -> bool:
    """Return the ``cpu`` that holds for all models: the value of those that set it, false where none does."""
    return any(model.device.cpu for model in models)


def running_at_once(config: Config, model: Model) -> int:
    """Return how many requests ``model`` computes at the same time."""
    return model.device.max_batch_size or config.runtime.max_seqs


def isolation_of(config: Config, model: Model) -> Isolation:
    """Return where the engine of ``model`` runs: the model's own setting, else that of ``[runtime]``."""
    return model.isolation or config.runtime.isolation


def default_model(config: Config) -> str | None:
    """Return the listed id of the model for requests that name none.

    It is the one that ``default_model_id`` names, else the only model; None where there are several and none is named.
    """
    if config.default_model_id is not None:
        return next((model.id for model in config.models if config.default_model_id in model.names), None)
    return config.models[0].id if len(config.models) == 1 else None


def _label(number: int, model: Model) -> str:
    return label(("models",), number, model.model_id)


def _known(names: list[str]) -> str:
    return f" Known: {', '.join(names)}." if names else ""
