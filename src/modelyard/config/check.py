"""Checks a mapping against the schema and the rules, and finds all of its problems, not only the first. Pure."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from modelyard.config import adapter_rules, cluster_rules, device_rules, mcp_rules, remote_rules, rules, weight_rules
from modelyard.config.model import Model, list_apart
from modelyard.config.problems import MAX_ADVISED, schema_problems
from modelyard.config.schema import Config
from modelyard.config.tables import TABLES, label, place
from modelyard.errors.configuration import ConfigProblem
from modelyard.system.typed_paths import exists, is_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from modelyard.errors.configuration import Location

_KEYS_WITHOUT_NAMES: Final = [[key] for key in Model.model_fields if key not in ("model_id", "alias", "aliases")]
"""Keys of a model whose faults hide no name."""


def check(
    given: dict[str, object],
    base: Path,
    *,
    written: Mapping[Location, str] | None = None,
    unresolved: Sequence[ConfigProblem] = (),
    names: Collection[str] = (),
    is_complete: bool = True,
) -> tuple[Config, list[ConfigProblem]]:
    """Return what is sound of a configuration, and all problems of the rest.

    Args:
        given: the tables and keys.
        base: where relative paths start.
        written: texts of the file in which environment variables were replaced.
        unresolved: problems with such variables; their values are checked no further.
        names: further names that models may have, in parts of the file that cannot be read.
        is_complete: whether all of the file could be read.
    """
    context = {"base": base}
    problems = list(unresolved)
    faults: list[Location] = [problem.location for problem in unresolved]
    config: Config | None = None
    try:
        config = Config.model_validate(given, context=context)
    except ValidationError as error:
        known = frozenset(faults)
        found = [problem for problem in schema_problems(error, given, written or {}) if problem.location not in known]
        problems += found
        faults += [problem.location for problem in found]
    # Errors are raised outside of the except clause: pydantic's error carries the input, including API keys.
    if config is not None and not faults:
        models = dict(enumerate(config.models, 1))
    else:
        config, models = _sound_parts(given, faults, context)
    unread = {*names, *_possible_names(given, faults, models)}
    is_hidden = bool(unread) or not is_complete or any(fault[:1] == ("models",) for fault in faults)
    causes = {*faults, *map(_meant, faults[:MAX_ADVISED])} - {()}
    problems += [
        problem
        for problem in rule_problems(config, models, names=unread, may_lack_models=is_hidden)
        if not _depends_on(problem, causes)
    ]
    return config, problems


def rule_problems(
    config: Config, models: Mapping[int, Model], *, names: Collection[str] = (), may_lack_models: bool = False
) -> list[ConfigProblem]:
    """Return the problems with rules.

    Args:
        config: with everything but models.
        models: by their numbers in the file, from 1.
        names: further names that a model may have.
        may_lack_models: whether there may be models beside these.
    """
    # Models that will be found have names that are not known yet.
    is_open = config.discover.is_on and config.command == "serve"
    problems = [] if models or may_lack_models or is_open else rules.no_models(models)
    if (models or may_lack_models) and not is_open:
        problems += rules.unknown_default(None if config.default_model_id in names else config.default_model_id, models)
    problems += [problem for problem in rules.unknown_drafts(models) if _draft(problem, models) not in names]
    problems += [
        problem
        for problem in rules.unknown_models_of_keys(config.server, models)
        if not is_open and _model_of_key(problem, config) not in names
    ]
    return [
        *problems,
        *rules.too_many_sequences(config.runtime),
        *rules.unfit_batch(config.runtime),
        *rules.unfit_batch_size(config.runtime, models),
        *adapter_rules.repeated_adapters(models),
        *adapter_rules.clashing_aliases(models),
        *rules.kv_type_without_flash(config.runtime),
        *rules.processes_on_windows(config.runtime, models, sys.platform),
        *device_rules.repeated_budgets(config.memory),
        *rules.unusable_keys(config.server),
        *rules.unusable_tls(config.server),
        *mcp_rules.same_ports(config.server),
        *mcp_rules.unserved_port(config.mcp, config.server),
        *mcp_rules.unusable_servers(config.mcp),
        *mcp_rules.clashing_servers(config.mcp),
        *mcp_rules.unknown_servers(config.mcp, models, config.server),
        *rules.shared_names(models),
        *rules.reserved_names(models),
        *device_rules.mixed_cpu(models),
        *rules.pinned_but_idle(models),
        *device_rules.devices_without_use(models),
        *device_rules.bad_placements(models),
        *weight_rules.bad_quantisation(models),
        *weight_rules.bad_format(models),
        *remote_rules.keys_of_other_models(models),
        *remote_rules.addresses_with_users(models),
        *remote_rules.remote_drafts(models),
        *cluster_rules.node_counts(config.cluster),
        *cluster_rules.models_of_nodes(config.cluster, models),
        *_missing_templates(models.items()),
    ]


def _draft(problem: ConfigProblem, models: Mapping[int, Model]) -> str | None:
    return models[int(problem.location[1]) + 1].draft


def _model_of_key(problem: ConfigProblem, config: Config) -> str:
    _, _, key, _, index = problem.location
    return config.server.keys[int(key)].models[int(index)]


def _depends_on(problem: ConfigProblem, causes: Collection[Location]) -> bool:
    """Whether the problem is about a value that is at fault itself, or that a misspelt key may be meant to set."""
    values = (problem.location, *problem.related)
    return any(value[:length] in causes for value in values for length in range(1, len(value) + 1))


def _meant(fault: Location) -> Location:
    """Return the location of the key that an unknown one is nearest to; () where the key is known, or none is near."""
    path, _, rest = place(fault)
    if len(rest) != 1 or rest[0] in TABLES[path].model_fields:
        return ()
    near = get_close_matches(str(rest[0]), list(TABLES[path].model_fields), n=1)
    return (*fault[:-1], near[0]) if near else ()


def _sound_parts(
    given: dict[str, object], faults: Sequence[Location], context: dict[str, Path]
) -> tuple[Config, dict[int, Model]]:
    """Return what remains of a mapping without its faults: the top level, and the models by number in the file."""
    top_level = {key: value for key, value in given.items() if key != "models"}
    left_out = frozenset(faults)
    models = dict(_sound_models(given.get("models"), left_out, context))
    list_apart(tuple(models.values()))
    return Config.model_validate(_with_server_names(_without(left_out, top_level)), context=context), models


def _with_server_names(top_level: Any) -> Any:
    """Return the top level with names for MCP servers whose own are missing or at fault: a server needs one."""
    match top_level:
        case {"mcp": {"servers": [*servers]} as mcp}:
            named = [
                {"name": f"server {number}", **server} if isinstance(server, dict) else server
                for number, server in enumerate(servers, 1)
            ]
            return {**top_level, "mcp": {**mcp, "servers": named}}
        case _:
            return top_level


def _sound_models(
    tables: object, faults: Collection[Location], context: dict[str, Path]
) -> Iterator[tuple[int, Model]]:
    for index, table in enumerate(tables if isinstance(tables, list | tuple) else ()):
        try:
            yield index + 1, Model.model_validate(_without(faults, table, ("models", index)), context=context)
        except ValidationError:
            continue  # no table at all, or one without a sound model_id


def _without(faults: Collection[Location], value: object, at: Location = ()) -> object:
    """Return the value at location ``at`` without the keys and items that are at fault."""
    match value:
        case dict():
            return {
                key: _without(faults, inner, (*at, key))
                for key, inner in value.items()
                if isinstance(key, str) and (*at, key) not in faults
            }
        case list() | tuple():
            return [
                _without(faults, item, (*at, index)) for index, item in enumerate(value) if (*at, index) not in faults
            ]
        case _:
            return value


def _possible_names(given: Mapping[str, object], faults: Sequence[Location], models: Mapping[int, Model]) -> set[str]:
    """Return the texts in faulty parts that may be names of models, as under a misspelt ``alias``."""
    # A set, because the texts of a table are read once, however many faults it has.
    faulty: set[Location] = set()
    for fault in faults:
        match fault:
            case ("models", int() as index, *rest):
                if index + 1 not in models or rest[:1] not in _KEYS_WITHOUT_NAMES:
                    faulty.add(fault[:2])
            case ("models", *_):
                faulty.add(fault[:1])
            case (str() as key,) if key not in Config.model_fields and isinstance(given.get(key), list | dict):
                faulty.add(fault)
    return set().union(*(_texts(_value_at(given, location)) for location in faulty))


def _value_at(given: Mapping[str, object], location: Location) -> object:
    """Return the value of a key at the top level, or one item of it where it is a list."""
    value = given.get(str(location[0]))
    return value[int(location[1])] if len(location) > 1 and isinstance(value, list | tuple) else value


def _texts(value: object) -> set[str]:
    match value:
        case str():
            return {value.strip()}
        case dict():
            return set().union(*map(_texts, value.values()))
        case list() | tuple():
            return set().union(*map(_texts, value))
        case _:
            return set()


def _missing_templates(models: Iterable[tuple[int, Model]]) -> list[ConfigProblem]:
    return [
        ConfigProblem(
            f"chat_template '{path}' {'is not a file' if exists(path) else 'does not exist'}.",
            table=label(("models",), number, model.model_id),
            location=("models", number - 1, "chat_template"),
        )
        for number, model in models
        if (path := model.chat_template) is not None and not is_file(path)
    ]
