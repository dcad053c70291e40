"""Makes a checked configuration of a TOML file or of the command line, and reports all problems at once."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from modelyard.config import rules
from modelyard.config.bounded_read import NotReadable, read_regular
from modelyard.config.paths import exists, is_file
from modelyard.config.problems import schema_problems
from modelyard.config.schema import Config, Model, list_apart
from modelyard.config.tables import label
from modelyard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Location = tuple[int | str, ...]
"""Location of a fault in the mapping, as in pydantic's errors: ``("models", 0, "kind")``."""


def load_config(path: Path, server: Mapping[str, object] | None = None) -> Config:
    """Return the configuration in a TOML file. Relative paths in it start at its folder.

    Args:
        path: of the file.
        server: keys of ``[server]`` that take the place of the file's.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or breaks the schema or a rule; it lists every problem.
    """
    mapping = _parse(path)
    if isinstance(mapping, str):
        raise ConfigError(str(path), [mapping])
    table = mapping.get("server", {})
    if server and isinstance(table, dict):
        mapping["server"] = {**table, **server}
    return validate_config(mapping, source=str(path), base=path.parent)


def validate_config(mapping: Mapping[str, object], source: str = "command line", base: Path | None = None) -> Config:
    """Return the configuration in a mapping that is structured like the TOML file.

    Args:
        mapping: the tables and keys.
        source: names the origin in errors.
        base: where relative paths start; None: at the working directory.

    Raises:
        ConfigError: the mapping breaks the schema or a rule; it lists every problem.
    """
    given, context = dict(mapping), {"base": (base or Path()).absolute()}
    problems: list[str] = []
    faults: list[Location] = []
    try:
        config = Config.model_validate(given, context=context)
        models = dict(enumerate(config.models, 1))
    except ValidationError as error:
        problems = schema_problems(error, given)
        faults = [details["loc"] for details in error.errors(include_input=False, include_url=False)]
        config, models = _sound_parts(given, faults, context)
    problems += _rule_problems(config, models, faults, given)
    # Raised outside of the except clause, because a chained pydantic error carries the input, including API keys.
    if problems:
        raise ConfigError(source, problems)
    return config


def revise(config: Config, models: Sequence[Model], default_model_id: str | None, source: str) -> Config:
    """Return ``config`` with other models and another default.

    Raises:
        ConfigError: the result breaks a rule; it lists every problem.
    """
    revised = config.model_copy(update={"models": tuple(models), "default_model_id": default_model_id})
    if problems := _rule_problems(revised, dict(enumerate(revised.models, 1)), (), {}):
        raise ConfigError(source, problems)
    return revised


def _parse(path: Path) -> dict[str, Any] | str:
    """Return the content of the file, or its problem as a sentence."""
    if path.suffix.lower() != ".toml":
        return "A configuration file must end in .toml."
    try:
        # Editors on Windows begin the file with a byte-order mark, which TOML does not know.
        text = read_regular(path).decode("utf-8-sig")
        return tomllib.loads(text)
    except FileNotFoundError:
        return "There is no such file."
    except NotReadable as error:
        return str(error)
    except OSError as error:
        return f"The file cannot be read: {error.strerror}."
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        return f"The file is not UTF-8 text: bad byte in line {line}. Save it as UTF-8."
    except RecursionError:
        return "The file is not valid TOML: it nests too deep."
    except ValueError as error:  # also a number with more digits than Python reads, which is no TOMLDecodeError
        return f"The file is not valid TOML: {_with_position(str(error), text)}."


def _with_position(message: str, text: str) -> str:
    """Return the parser's message, with line and column in place of "at end of document"."""
    lines = text.split("\n")
    end = f"at line {len(lines)}, column {len(lines[-1]) + 1}, the end of the file"
    return re.sub(r"at end of document(?=\)$)", end, message)


def _sound_parts(
    given: dict[str, object], faults: Sequence[Location], context: dict[str, Path]
) -> tuple[Config, dict[int, Model]]:
    """Return what remains of a mapping without its faults: the top level, and the models by number in the file."""
    top_level = {key: value for key, value in given.items() if key != "models"}
    models = dict(_sound_models(given.get("models"), faults, context))
    list_apart(tuple(models.values()))
    return Config.model_validate(_without(faults, top_level), context=context), models


def _sound_models(tables: object, faults: Sequence[Location], context: dict[str, Path]) -> Iterator[tuple[int, Model]]:
    for index, table in enumerate(tables if isinstance(tables, list | tuple) else ()):
        try:
            yield index + 1, Model.model_validate(_without(faults, table, ("models", index)), context=context)
        except ValidationError:
            continue  # no table at all, or one without a sound model_id


def _without(faults: Sequence[Location], value: object, at: Location = ()) -> object:
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


def _rule_problems(
    config: Config, models: Mapping[int, Model], faults: Sequence[Location], given: Mapping[str, object]
) -> list[str]:
    """Return the problems with rules, except for those that follow from a fault that is reported already."""
    problems = []
    if not any(_hides_names(fault, given) for fault in faults):
        problems += rules.no_models(models) or rules.unknown_default(config.default_model_id, models)
        problems += rules.unknown_drafts(models)
        problems += rules.unknown_models_of_keys(config.server, models)
    if not any(fault[0] == "runtime" for fault in faults):
        problems += rules.too_many_sequences(config.runtime)
        problems += rules.unfit_batch(config.runtime)
        problems += rules.unfit_batch_size(config.runtime, models)
        problems += rules.kv_type_without_flash(config.runtime)
        problems += rules.processes_on_windows(config.runtime, models, sys.platform)
    if not any(fault[0] == "server" for fault in faults):
        problems += rules.unusable_keys(config.server)
        problems += rules.unusable_tls(config.server)
    return [
        *problems,
        *rules.shared_names(models),
        *rules.reserved_names(models),
        *rules.mixed_cpu(models),
        *rules.pinned_but_idle(models),
        *rules.layers_without_device(models),
        *rules.bad_quantisation(models),
        *rules.bad_format(models),
        *_missing_templates(models.items()),
    ]


def _hides_names(fault: Location, given: Mapping[str, object]) -> bool:
    """Whether the fault may hide a name: an unknown key may be a misspelt ``alias``, or a misspelt ``[[models]]``."""
    match fault:
        case ("models", _, key, *_):
            return key in ("model_id", "alias", "aliases") or key not in Model.model_fields
        case ("models", *_):
            return True
        case (key,):
            return key not in Config.model_fields and isinstance(given.get(str(key)), list)
        case _:
            return False


def _missing_templates(models: Iterable[tuple[int, Model]]) -> list[str]:
    return [
        f"{label(('models',), number, model.model_id)}: chat_template '{path}' "
        f"{'is not a file' if exists(path) else 'does not exist'}."
        for number, model in models
        if (path := model.chat_template) is not None and not is_file(path)
    ]
