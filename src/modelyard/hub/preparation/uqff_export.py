"""Exports a model as UQFF: a folder with its quantised weights and the other files that a loader needs."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from modelyard.errors import UnusableModel
from modelyard.formats.uqff import constants
from modelyard.formats.uqff.card import model_card
from modelyard.hub.preparation.plan import FilePlan, Stores, plan_files
from modelyard.hub.select.kind import check_kind
from modelyard.hub.select.select import FileRequest
from modelyard.hub.sources.converter_process import run_converter
from modelyard.hub.sources.disk import check_disk_space
from modelyard.hub.sources.listing import OnProgress

logger = logging.getLogger(__name__)

_STAGING: Final = ".modelyard-uqff-"
_CARD: Final = "README.md"


@dataclass(frozen=True, slots=True)
class UqffExport:
    """The output of an export.

    Attributes:
        types: types in ``formats.uqff.constants.TYPES``, each at most once.
        folder: the folder that the files are written to.
        stem: stem of the shards' names, for an export of one type; None: the type's name.
        has_card: whether a README.md is written, which the hub shows with the files.
        base_model: repository of the original model, for report and card; None: the repository that is quantised.
        repo_id: repository in which the files will be published, for report and card; None: not known.
        max_shard_bytes: size of a shard; a layer that would exceed it starts the next shard.
    """

    types: tuple[str, ...]
    folder: Path
    stem: str | None = None
    has_card: bool = True
    base_model: str | None = None
    repo_id: str | None = None
    max_shard_bytes: int = constants.MAX_SHARD_BYTES


def parse_types(levels: Iterable[str]) -> tuple[str, ...]:
    """Return the UQFF types that levels name: each level is a name, a number of bits, or several separated by commas.

    Raises:
        UnusableModel: a level names no type, or there are no levels.
    """
    types: list[str] = []
    for word in (word.strip().lower() for level in levels for word in level.split(",")):
        type_ = constants.SHORTHANDS.get(word, (word,))[0]
        if type_ not in constants.TYPES:
            choices = ", ".join((*constants.SHORTHANDS, *constants.TYPES))
            raise UnusableModel(f"'{word}' is no type of UQFF. Choose some of {choices}.")
        if type_ not in types:
            types.append(type_)
    if not types:
        raise UnusableModel("UQFF holds quantised weights: choose a type with --isq, such as --isq q4k.")
    return tuple(types)


def export_uqff(request: FileRequest, export: UqffExport, stores: Stores, on_progress: OnProgress) -> list[Path]:
    """Quantise a checkpoint into a UQFF export.

    The folder holds either its previous files or the complete export, even if the export fails or is cancelled.

    Args:
        request: the model; its dtype applies to weights that are not quantised.
        export: the output.
        stores: where the checkpoint is looked up.
        on_progress: see ``OnProgress``.

    Returns:
        The shards, in order.

    Raises:
        UnusableModel: the model cannot be exported, or ``on_progress`` returned False.
    """
    check_kind(request.kind)
    plan = plan_files(replace(request, quant=None, isq=export.types[0]), stores)
    if plan.decision.form != "safetensors":
        raise UnusableModel(
            f"'{request.source}' has no safetensors weights, and UQFF is made of nothing else. Name the model's "
            "full-precision repository or folder, or write GGUF: -o NAME.gguf."
        )
    _check_target(export)
    folder = stores.hub.fetch(plan.decision.listing, plan.decision.names, on_progress)
    try:
        export.folder.parent.mkdir(parents=True, exist_ok=True)
        inside = export.folder if export.folder.is_dir() else export.folder.parent
        with tempfile.TemporaryDirectory(prefix=_STAGING, dir=inside) as staging:
            staged = Path(staging) / "export"
            staged.mkdir(mode=0o755)
            needed = sum((folder / name).stat().st_size for name in plan.decision.names) * len(export.types)
            check_disk_space(staged, needed, f"'{request.source}' cannot be quantised")
            report = _quantize(plan, folder, staged, export, on_progress)
            _copy_descriptions(folder, plan.decision.names, staged)
            if export.has_card:
                (staged / _CARD).write_text(model_card(plan.name, report), "utf-8")
            _publish(staged, export.folder, Path(staging) / "before")
    except OSError as error:
        raise UnusableModel(
            f"{export.folder} cannot be written: {error.strerror}. Choose another place with --out."
        ) from error
    return [export.folder / shard for output in report["outputs"] for shard in output["shards"]]


def _check_target(export: UqffExport) -> None:
    """Raise UnusableModel if the target folder has weights that a loader would take for a part of the export."""
    folder = export.folder
    if folder.exists() and not folder.is_dir():
        raise UnusableModel(f"{folder} is a file, and a UQFF export is a folder. Choose another place with --out.")
    present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    stems = export.types if export.stem is None else (export.stem,)
    for name in present:
        is_weights = name.endswith((".safetensors", ".pth", ".pt", ".bin")) and name != constants.RESIDUAL
        if is_weights or (name.endswith(constants.SUFFIX) and _stem_of(name) not in stems):
            raise UnusableModel(
                f"{folder} has other weights already ({name}), which a reader would take for a part of this export. "
                "Choose another folder with --out."
            )


def _stem_of(shard: str) -> str:
    return shard.removesuffix(constants.SUFFIX).rpartition("-")[0]


def _quantize(plan: FilePlan, folder: Path, out: Path, export: UqffExport, on_progress: OnProgress) -> dict[str, Any]:
    """Write shards, residual tensors and the report, and return the report."""
    arguments = ["--max-shard-bytes", str(export.max_shard_bytes)]
    for type_ in export.types:
        arguments += ["--type", type_]
    hub_id = plan.decision.listing.hub_id
    options = {
        "--stem": export.stem,
        "--dtype": None if plan.request.dtype == "auto" else plan.request.dtype.upper(),
        "--imatrix": plan.request.imatrix,
        "--base-model": export.base_model or (None if hub_id is None else hub_id.repo),
        "--repo-id": export.repo_id,
    }
    for option, value in options.items():
        arguments += [] if value is None else [option, str(value)]
    with tempfile.TemporaryDirectory(prefix="modelyard-") as checkpoint:
        for name in plan.decision.names:
            link = Path(checkpoint) / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((folder / name).absolute())
        run_converter(
            "uqff.write",
            [checkpoint, str(out), *arguments],
            on_progress,
            lambda text: logger.warning("%s", text),
            is_private=False,
        )
    report: dict[str, Any] = json.loads((out / constants.REPORT).read_text("utf-8"))
    return report


def _copy_descriptions(folder: Path, names: Sequence[str], out: Path) -> None:
    """Copy configuration, tokenizer and templates, without descriptions of the original weights."""
    for name in names:
        if name.endswith((".safetensors", ".safetensors.index.json")) or name == constants.REPORT:
            continue
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, out / name)
    config = _read_json(out / "config.json")
    _write_json(out / "config.json", _without(config, "quantization_config"))
    template = out / "chat_template.jinja"
    if template.is_file() and (out / "tokenizer_config.json").is_file():
        settings = _read_json(out / "tokenizer_config.json")
        _write_json(out / "tokenizer_config.json", {**settings, "chat_template": template.read_text("utf-8")})


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UnusableModel(f"{path.name} is no JSON: {error}. Download the model again.") from error


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), "utf-8")


def _without(value: Any, key: str) -> Any:
    """Return a JSON value without the entries of that name, at any depth."""
    if isinstance(value, dict):
        return {name: _without(inner, key) for name, inner in value.items() if name != key}
    if isinstance(value, list):
        return [_without(inner, key) for inner in value]
    return value


def _publish(staged: Path, folder: Path, before: Path) -> None:
    """Move the files of ``staged`` to ``folder``, all or none; files that they replace are moved to ``before``."""
    if not folder.exists():
        staged.replace(folder)
        return
    before.mkdir()
    stems = {_stem_of(path.name) for path in staged.glob(f"*{constants.SUFFIX}")}
    # An earlier export of the same name may have more shards.
    stale = {path.name for path in folder.glob(f"*{constants.SUFFIX}") if _stem_of(path.name) in stems}
    made = [path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file()]
    moved: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        moved.append((source, target))

    try:
        for name in sorted(stale.union(made)):
            if (folder / name).exists():
                move(folder / name, before / name)
        for name in made:
            move(staged / name, folder / name)
    except BaseException:
        for source, target in reversed(moved):
            target.replace(source)
        raise
