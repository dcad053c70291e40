"""Makes a checked configuration of a TOML file or of the command line, and reports all problems at once."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.config.check import check
from modelyard.config.document import Document, UnreadableDocument, read_document
from modelyard.config.environment import Expansion, expand
from modelyard.config.mcp_file import mcp_config_path
from modelyard.config.mcp_merge import with_mcp_file
from modelyard.config.tables import dotted, kind_of
from modelyard.errors.configuration import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelyard.config.model import Model
    from modelyard.config.schema import Config


def load_config(path: Path, server: Mapping[str, object] | None = None, mcp_config: Path | None = None) -> Config:
    """Return the configuration in a TOML file. Relative paths in it start at its folder.

    Args:
        path: of the file.
        server: keys of ``[server]`` that take the place of the file's.
        mcp_config: JSON file with MCP servers, in place of the one that the file names.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or breaks the schema or a rule; it lists every problem, with
            its position.
    """
    document = _read(path)
    expansion = expand(document.values, os.environ)
    expansion.read_scalars(kind_of)
    mapping = expansion.values
    table = mapping.get("server", {})
    if server and isinstance(table, dict):
        mapping["server"] = {**table, **server}
    base = path.parent.absolute()
    merged = with_mcp_file(mapping, base, mcp_config, mcp_config_path(None))
    config, problems = check(
        merged.mapping,
        base,
        written=expansion.written,
        unresolved=(*expansion.problems, *merged.unresolved),
        names=document.words,
        is_complete=not document.mistakes,
    )
    overridden = {("server", key) for key in server or ()}
    found = [problem for problem in problems if not document.follows_from_mistake(problem)]
    of_toml, of_json = merged.separated(found)
    placed = [
        problem if problem.location[:2] in overridden else document.place(_redacted(problem, expansion))
        for problem in _with_keys(of_toml, document.values)
    ]
    if document.mistakes or placed or of_json:
        # Problems without a position, as of the command line, come first.
        every = sorted((*document.mistakes, *placed), key=lambda problem: (problem.line or 0, problem.column or 0))
        raise ConfigError(str(path), [*every, *of_json], path)
    return config


def located(path: Path, problems: Sequence[ConfigProblem]) -> list[ConfigProblem]:
    """Return problems that were found in the configuration of a file later, with their positions in it.

    Raises:
        ConfigError: the file cannot be read any more.
    """
    document = _read(path)
    return [document.place(problem) for problem in _with_keys(problems, document.values)]


def validate_config(mapping: Mapping[str, object], source: str = "command line", base: Path | None = None) -> Config:
    """Return the configuration in a mapping that is structured like the TOML file.

    Args:
        mapping: the tables and keys.
        source: names the origin in errors.
        base: where relative paths start; None: at the working directory.

    Raises:
        ConfigError: the mapping breaks the schema or a rule; it lists every problem.
    """
    base = (base or Path()).absolute()
    merged = with_mcp_file(dict(mapping), base)
    config, problems = check(merged.mapping, base, unresolved=merged.unresolved)
    of_mapping, of_json = merged.separated(problems)
    if of_mapping or of_json:
        raise ConfigError(source, [*_with_keys(of_mapping, mapping), *of_json])
    return config


def revise(config: Config, models: Sequence[Model], default_model_id: str | None, source: str) -> Config:
    """Return ``config`` with other models and another default.

    Raises:
        ConfigError: the result breaks a rule; it lists every problem.
    """
    from modelyard.config.check import rule_problems

    revised = config.model_copy(update={"models": tuple(models), "default_model_id": default_model_id})
    if problems := rule_problems(revised, dict(enumerate(revised.models, 1))):
        raise ConfigError(source, problems)
    return revised


def _read(path: Path) -> Document:
    try:
        return read_document(path)
    except UnreadableDocument as unreadable:
        problem = unreadable.problem
    # Raised outside of the except clause, so that it stands alone.
    raise ConfigError(str(path), [problem], path)


def _with_keys(problems: Sequence[ConfigProblem], given: Mapping[str, object]) -> list[ConfigProblem]:
    return [replace(problem, key=dotted(problem.location, given)) for problem in problems]


def _redacted(problem: ConfigProblem, expansion: Expansion) -> ConfigProblem:
    message, hint, table = map(expansion.redact, (problem.message, problem.hint, problem.table))
    return replace(problem, message=message, hint=hint, table=table)
