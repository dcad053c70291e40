"""``modelyard plan`` of a file: what a server of it would do when it starts, and how its open keys are written down."""

from __future__ import annotations

import codecs
import contextlib
import difflib
import json
import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from modelyard.cli.exit_codes import MEMORY, MODEL, OK
from modelyard.cli.messages import print_error, print_warning
from modelyard.config.edit import ModelEdit, NotEditable, edited
from modelyard.errors import ModelyardError
from modelyard.system.typed_paths import expanded

if TYPE_CHECKING:
    from modelyard.yard.inspection import InspectedModel, Inspection


_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


class NotWritten(ModelyardError):
    """The plan cannot be written into the file; the message says why, and what to do."""


def plan_file(file: Path, *, as_json: bool, is_written: bool) -> None:
    """Show what a server of a configuration would do when it starts, and exit with what is wrong.

    Args:
        file: the configuration.
        as_json: whether it is printed as JSON.
        is_written: whether the values that were chosen are written into the file.

    Raises:
        ConfigError: the file is missing or wrong.
        UnusableModel: llama.cpp cannot list the devices of the machine.
        NotWritten: it cannot be written.
    """
    from modelyard.config import load_config
    from modelyard.yard.inspection import inspect_models
    from modelyard.yard.runtime.configured_devices import list_budgeted_devices

    config = load_config(file)
    text = _read(file)
    devices, budgets = list_budgeted_devices(config)
    inspection = inspect_models(config, is_offline=False, devices=devices, budgets_of_devices=budgets)
    edits = _edits(tomllib.loads(text), inspection.models)
    changed = _edited(file, text, edits, inspection.models) if is_written else text
    if as_json:
        _print_json(file, inspection, is_changed=changed != text)
    else:
        _print_text(inspection)
        _print_changes(file, text, changed, is_written=is_written, is_open=bool(edits))
    if changed != text:
        _write(file, text, changed)
    raise typer.Exit(_exit_code(inspection))


def _exit_code(inspection: Inspection) -> int:
    if any(model.problem for model in inspection.models):
        return MODEL
    return MEMORY if inspection.oversized else OK


def _print_json(file: Path, inspection: Inspection, *, is_changed: bool) -> None:
    facts = {
        "file": str(file),
        "written": is_changed,
        "pools": [
            {"name": pool, "budget_bytes": budget, "startup_bytes": inspection.startup_pools.get(pool, 0)}
            for pool, budget in inspection.budgets.items()
        ],
        "models": [model.as_facts() for model in inspection.models],
    }
    typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))


def _print_text(inspection: Inspection) -> None:
    from modelyard.cli.tables import print_table, size, table_console

    console = table_console()
    pools = list(inspection.budgets)
    headings = ("Model", "Type", "Context", "On", *pools, "Tokens/s", "Loaded")
    rows = [
        (
            model.id,
            model.quantization or "?",
            "?" if model.context_length is None else f"{model.context_length:,}",
            model.placement or "?",
            *(size(model.pool_bytes.get(pool, 0) if model.pool_bytes else None) for pool in pools),
            "?" if model.tokens_per_s is None else f"{model.tokens_per_s:,.0f}",
            _loaded(model, inspection),
        )
        for model in inspection.models
    ]
    sums = (size(inspection.startup_pools.get(pool, 0)) for pool in pools)
    rows += [
        ("at the start, together", "", "", "", *sums, "", ""),
        ("budget", "", "", "", *(size(budget) for budget in inspection.budgets.values()), "", ""),
    ]
    print_table(console, headings, rows, right=("Context", *pools, "Tokens/s"))
    console.print()
    for model in inspection.models:
        for reason in _reasons(model):
            console.print(reason, markup=False)
    for model in inspection.models:
        for warning in model.warnings:
            print_warning(f"{model.id}: {warning}")
        if model.problem:
            print_error(f"{model.id}: {model.problem}")


def _loaded(model: InspectedModel, inspection: Inspection) -> str:
    if model.problem:
        return "cannot be served"
    if model.unchecked:
        return "not looked at"
    if model in inspection.oversized:
        return "never: it does not fit"
    if model.is_resident:
        return "at the start"
    return "on demand: no room at the start" if model.load == "startup" else "on demand"


def _reasons(model: InspectedModel) -> list[str]:
    """Return what was chosen for a model, and why, in sentences."""
    reasons = []
    if model.unchecked:
        reasons.append(f"{model.id}: {model.unchecked}")
    if model.quant_reason:
        reasons.append(f"{model.id}: {model.quantization}, {model.quant_reason}.")
    if model.is_fitted:
        reasons.append(f"{model.id}: a context of {model.context_length:,} tokens, {model.context_reason}.")
    return reasons


def _edits(document: Mapping[str, Any], models: Sequence[InspectedModel]) -> dict[int, ModelEdit]:
    """Return what is written for each model, by its number: keys that are open in the file itself."""
    edits = {}
    for number, (table, model) in enumerate(zip(document["models"], models, strict=True)):
        has_length = _is_open(table.get("device", {}).get("max_seq_len", "auto")) and model.is_fitted
        has_quant = _is_open(table.get("quantization", {}).get("quant")) and model.quant_reason
        edit = ModelEdit(model.context_length if has_length else None, model.quant if has_quant else None)
        if edit != ModelEdit():
            edits[number] = edit
    return edits


def _is_open(value: object) -> bool:
    return isinstance(value, str) and value.strip().lower() == "auto"


def _edited(file: Path, text: str, edits: Mapping[int, ModelEdit], models: Sequence[InspectedModel]) -> str:
    try:
        return edited(text, edits)
    except NotEditable:
        values = "; ".join(f"{models[number].id}: {_values(edit)}" for number, edit in edits.items())
        raise NotWritten(
            f"{file} is written in a way that cannot be changed without a risk. Write into it yourself: {values}."
        ) from None


def _values(edit: ModelEdit) -> str:
    parts = []
    if edit.max_seq_len is not None:
        parts.append(f"max_seq_len = {edit.max_seq_len} in [models.device]")
    if edit.quant is not None:
        quant = f'quant = "{edit.quant}"' if edit.quant else "no quant"
        parts.append(f"{quant} in [models.quantization]")
    return ", ".join(parts)


def _print_changes(file: Path, text: str, changed: str, *, is_written: bool, is_open: bool) -> None:
    if changed != text:
        lines = difflib.unified_diff(text.splitlines(), changed.splitlines(), str(file), str(file), lineterm="", n=1)
        typer.echo("\n" + "\n".join(lines))
    elif is_written:
        typer.echo(f"{file} has nothing to write: all that was chosen is in it.")
    elif is_open:
        typer.echo("--write writes what was chosen into the file.")


def _read(file: Path) -> str:
    """Return the text of the file, without a byte order mark."""
    return expanded(file).read_bytes().removeprefix(codecs.BOM_UTF8).decode("utf-8")


def _write(file: Path, planned: str, text: str) -> None:
    """Put ``text`` in the place of the file at once; its owner, permissions and byte order mark stay, and a link to it.

    Raises:
        NotWritten: it cannot be written, or has another text than ``planned`` by now.
    """
    path = expanded(file).resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        before, status = path.read_bytes(), path.stat()
        mark = codecs.BOM_UTF8 if before.startswith(codecs.BOM_UTF8) else b""
        if before != mark + planned.encode("utf-8"):
            raise NotWritten(f"{file} was changed while it was planned, and nothing is written. Run it again.")
        try:
            # A configuration may have keys in it, which others must not read meanwhile.
            with os.fdopen(os.open(temporary, _NEW, 0o600), "wb") as written:
                written.write(mark + text.encode("utf-8"))
            _give(temporary, status)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise NotWritten(f"{file} cannot be written: {error.strerror}.") from error


def _give(path: Path, status: os.stat_result) -> None:
    """Give a file the owner, where that is allowed, and the permissions of another."""
    if hasattr(os, "chown"):
        with contextlib.suppress(PermissionError):
            os.chown(path, status.st_uid, status.st_gid)
    path.chmod(stat.S_IMODE(status.st_mode))
