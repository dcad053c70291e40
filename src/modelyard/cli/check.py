"""``modelyard check``: finds every mistake in a configuration and in the files that it names, and loads nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli.exit_codes import CONFIGURATION, MEMORY, MODEL, OK
from modelyard.cli.messages import print_error, print_warning
from modelyard.cli.model_names import DEFAULT_FILE, config_path
from modelyard.cli.options import ConfigArgument, ConfigOption
from modelyard.errors import ConfigError, ConfigProblem
from modelyard.system.quantities import count_text

if TYPE_CHECKING:
    from modelyard.config import Config
    from modelyard.yard.inspection import InspectedModel, Inspection


@dataclass(frozen=True, slots=True)
class _Findings:
    """What is wrong, by the kind of failure that it would be: the configuration, its models, their memory."""

    configuration: tuple[ConfigProblem, ...] = ()
    models: tuple[ConfigProblem, ...] = ()
    memory: tuple[ConfigProblem, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[ConfigProblem, ...]:
        """All problems, in the order of the file."""
        every = (*self.configuration, *self.models, *self.memory)
        return tuple(sorted(every, key=lambda problem: (problem.line or 0, problem.column or 0)))

    @property
    def exit_code(self) -> int:
        """The exit code of the gravest kind."""
        kinds = ((self.configuration, CONFIGURATION), (self.models, MODEL), (self.memory, MEMORY))
        return next((code for problems, code in kinds if problems), OK)


def check(
    file: ConfigArgument = None,
    config: ConfigOption = None,
    online: Annotated[
        bool, typer.Option("--online", help="Ask the hub about models that are not downloaded yet.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of the configuration, for editors.")
    ] = False,
) -> None:
    """Find every mistake in a configuration, with its line, and load nothing.

    The files of the models are looked at, and their memory is predicted. Without a file, models.toml in the current
    folder is checked.
    """
    if schema:
        from modelyard.config.json_schema import SCHEMA_FILE

        typer.echo(SCHEMA_FILE.read_text("utf-8"), nl=False)
        return
    if file is None and config is None and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    path = config_path(file, config, command="check")
    from modelyard.config import load_config

    try:
        loaded = load_config(path)
    except ConfigError as error:
        if not as_json:
            raise
        _print_json(path, _Findings(configuration=error.problems), None)
        raise typer.Exit(CONFIGURATION) from None
    from modelyard.yard.inspection import inspect_on_this_machine

    inspection = inspect_on_this_machine(loaded, is_offline=not online)
    findings = _findings(path, loaded, inspection)
    if as_json:
        _print_json(path, findings, inspection)
    else:
        _print_text(path, findings, inspection)
    raise typer.Exit(findings.exit_code)


def _findings(path: Path, config: Config, inspection: Inspection) -> _Findings:
    from modelyard.cli.tables import budgets_text, size
    from modelyard.config import located, missing_models, missing_paths, read_keys
    from modelyard.yard.runtime.configured_devices import device_problems

    budget = budgets_text(inspection.budgets)
    missing = missing_models(config.models)
    are_missing = {problem.location for problem in missing}
    unusable = [
        ConfigProblem(model.problem, location=location)
        for index, model in enumerate(inspection.models)
        if model.problem and (location := ("models", index, "model_id")) not in are_missing
    ]
    oversized = [
        ConfigProblem(
            f"{model.id} takes {size(model.memory_bytes)}, and the budget of all models is {budget}.",
            "Choose a smaller quantisation or max_seq_len, or raise budget in [memory].",
            location=("models", index, "model_id"),
        )
        for index, model in enumerate(inspection.models)
        if model in inspection.oversized
    ]
    warnings = [f"{model.id}: {warning}" for model in inspection.models for warning in model.warnings]
    if not oversized and inspection.left_out:
        together = size(inspection.startup_bytes)
        warnings.append(
            f"The models that are loaded at the start take {together} together, and the budget is {budget}. Give some "
            'of them load = "on-demand".'
        )
    try:
        read_keys(config)
    except ConfigError as error:
        # The variable may be set for the server alone.
        warnings += [str(problem) for problem in error.problems]
    misplaced, about_devices = device_problems(config)
    warnings += about_devices
    others = [problem for problem in missing_paths(config) if problem.location not in are_missing]
    return _Findings(
        tuple(located(path, [*others, *misplaced])),
        tuple(located(path, [*missing, *unusable])),
        tuple(located(path, oversized)),
        tuple(warnings),
    )


def _print_json(path: Path, findings: _Findings, inspection: Inspection | None) -> None:
    facts: dict[str, Any] = {
        "file": str(path),
        "ok": findings.exit_code == OK,
        "problems": [
            {
                **{key: getattr(problem, key) for key in ("line", "column", "key", "message", "hint")},
                # Those of a JSON file with MCP servers are in that file.
                **({"file": problem.source} if problem.source else {}),
            }
            for problem in findings.problems
        ],
        "warnings": list(findings.warnings),
    }
    if inspection is not None:
        facts["budget_bytes"] = inspection.budget_bytes
        facts["startup_bytes"] = inspection.startup_bytes
        facts["models"] = [model.as_facts() for model in inspection.models]
    typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))


def _print_text(path: Path, findings: _Findings, inspection: Inspection) -> None:
    from modelyard.cli.tables import budgets_text, print_table, size, table_console

    console = table_console()
    if findings.problems:
        print_error(f"{ConfigError(str(path), findings.problems, path)}\n")
    for warning in findings.warnings:
        print_warning(warning)
    rows = [
        (
            model.id,
            model.load,
            model.quantization or ("" if model.remote else "?"),
            ("" if model.remote else "?") if model.context_length is None else f"{model.context_length:,}",
            "" if model.remote else size(model.memory_bytes),
            _state(model, inspection),
        )
        for model in inspection.models
    ]
    print_table(console, ("Model", "Load", "Weights", "Context", "Memory", "State"), rows, right=("Context", "Memory"))
    if findings.problems:
        return
    unchecked = sum(bool(model.unchecked) for model in inspection.models)
    models = count_text(len(rows), "model")
    rest = f" {unchecked} of them not downloaded yet, and not looked at." if unchecked else ""
    console.print()
    console.print(f"{path}: no mistakes, {models}, a budget of {budgets_text(inspection.budgets)}.{rest}", markup=False)


def _state(model: InspectedModel, inspection: Inspection) -> str:
    if model.problem:
        return "cannot be served"
    if model.unchecked:
        return "not looked at: not downloaded"
    if model.remote:
        return "on another server" if len(model.remote) == 1 else f"on {len(model.remote)} other servers"
    return "does not fit" if model in inspection.oversized else "fits"
