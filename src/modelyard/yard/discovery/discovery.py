"""Looks for models in stores and folders, checks their files, and gives each a name that stays."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from modelyard.config import Config, Model
from modelyard.config.discover import Discover
from modelyard.config.layers import free_name, with_models, without_models
from modelyard.config.rules import RESERVED_NAME
from modelyard.errors import UnusableModel
from modelyard.hub import Hub, ModelFiles, Stores, estimate_files
from modelyard.hub.select.local_models import Found, LocalModel, find_folder_models, find_store_models
from modelyard.system.typed_paths import expanded
from modelyard.yard.runtime.model_spec import plan_of

_Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class _Checked:
    """A model whose files were read: its state by then, and its table, or why it cannot be served."""

    stamp: _Stamp
    table: Mapping[str, Any] | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Scan:
    """What one search of this machine has found.

    Attributes:
        models: the models that can be served, in a stable order.
        tables: of each, by its ``model_id``, its table without a name.
        left_out: why others are not served, by what names them.
        is_complete: whether everything was looked at; else the next search goes on from there.
    """

    models: tuple[LocalModel, ...] = ()
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    is_complete: bool = True


class Discovery:
    """Searches this machine again and again. One search at a time; ``served`` may be called on any thread.

    Args:
        environ: the environment, whose variables name folders of other programs.
        clock: in seconds.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.monotonic) -> None:
        self._environ, self._clock = environ, clock
        self._checked: dict[str, _Checked] = {}
        self._places: dict[str, Found] = {}
        self._names: dict[str, str] = {}
        self._last = Scan()
        self._lock = threading.Lock()

    def scan(self, config: Config, limit_s: float) -> Scan:
        """Look for models, and check those whose files have changed since the last time. Reads files.

        Args:
            config: where to look, and the settings that decide which files can be served.
            limit_s: after this time no further model is checked.
        """
        deadline = self._clock() + limit_s
        found, left_out, is_complete = self._found(config.discover), dict[str, str](), True
        models: dict[str, LocalModel] = {}
        tables: dict[str, Mapping[str, Any]] = {}
        seen: set[object] = set()
        for place in found:
            for shown, problem in ((_printable(name), problem) for name, problem in place.problems.items()):
                left_out[shown] = problem.removeprefix(f"{shown}: ")
            for model in place.models:
                if (identity := _identity(model)) in seen:
                    continue
                seen.add(identity)
                stamp = _stamp(model)
                known = self._checked.get(model.model_id)
                if known is None or known.stamp != stamp:
                    if self._clock() > deadline:
                        is_complete = False
                        continue
                    known = self._checked[model.model_id] = _check(config, model, stamp)
                if known.table is None:
                    name = _printable(model.model_id)
                    left_out[name] = known.problem.removeprefix(f"{name}: ")
                else:
                    models[model.model_id], tables[model.model_id] = model, known.table
        if is_complete:
            gone = self._checked.keys() - {model.model_id for place in found for model in place.models}
            for model_id in gone:
                del self._checked[model_id]
        scan = Scan(tuple(models.values()), tables, left_out, is_complete)
        with self._lock:
            self._last = scan
        return scan

    def served(self, config: Config) -> Config:
        """Return the configuration with the models of the last search in place of those of an earlier one.

        Models that the configuration names, by their id or by their file, are left out. A model keeps its name as long
        as this object lives, and as no configured model has it.
        """
        own = without_models(config, "discovered")
        if not own.discover.is_on:
            return own
        with self._lock:
            scan = self._last
            taken = {RESERVED_NAME, *(name for model in own.models for name in model.names)}
            repositories = {name.casefold() for name in (*taken, *_repositories(own.models))}
            files = {_source_identity(model) for model in own.models}
            taken |= {name for model_id, name in self._names.items() if model_id in scan.tables}
            models = []
            for model in scan.models:
                if _identity(model) in files or model.model_id in taken:
                    continue
                name = self._names.get(model.model_id)
                if name is None or any(name in other.names for other in own.models):
                    if model.qualifier == "huggingface" and model.name.casefold() in repositories:
                        continue  # it is configured by the id of its repository
                    name = free_name((model.name, f"{model.qualifier}/{model.name}"), taken)
                    taken.add(name)
                    self._names[model.model_id] = name
                models.append(_model({**scan.tables[model.model_id], "alias": name}))
        return with_models(own, models)

    def _found(self, discover: Discover) -> Sequence[Found]:
        """Return what is in each place; of one that cannot be looked in, what was there before."""
        home, found = expanded("~"), []
        for name, look in _looks(discover, home, self._environ):
            place = look()
            if place.is_unreadable and (before := self._places.get(name)) is not None:
                place = replace(before, problems=place.problems)
            elif not place.is_unreadable:
                self._places[name] = place
            found.append(place)
        return found


def _looks(discover: Discover, home: Path, environ: Mapping[str, str]) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Yield each place with what looks in it, folders first: their names are the operator's own choice."""
    for folder in discover.folders:
        yield str(folder), lambda folder=folder: find_folder_models(folder)  # type: ignore[misc]
    for store in discover.named_stores:
        yield store, lambda store=store: find_store_models(store, home, environ)  # type: ignore[misc]


def _identity(model: LocalModel) -> object:
    """Return what is equal for two ways to the same model: its file; of Ollama, where a file has several, its name."""
    return model.model_id if model.qualifier == "ollama" else os.path.realpath(model.paths[0])


def _repositories(models: Sequence[Model]) -> Iterator[str]:
    """Yield the names that files of the models' repositories get if they are found in the hub's cache."""
    for reference in (model.reference for model in models if model.reference.kind == "hub"):
        yield reference.source
        if reference.quant is not None:
            yield f"{reference.source}:{reference.quant}"


def _source_identity(model: Model) -> object:
    reference = model.reference
    if reference.kind == "ollama":
        return f"ollama:{reference.id}"
    return os.path.realpath(reference.source) if reference.kind == "path" else reference.source


def _stamp(model: LocalModel) -> _Stamp:
    """Return the state of a model's files and folders, which changes when they do."""
    stamps: list[tuple[int, int, int] | None] = []
    for path in model.paths:
        try:
            status = path.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(stamps)


def _check(config: Config, found: LocalModel, stamp: _Stamp) -> _Checked:
    """Read the headers of a model's files, and return its table, or why it cannot be served."""
    table: dict[str, Any] = {"model_id": found.model_id, "load": "on-demand", **found.keys}
    if not _is_unicode(found.model_id):
        return _Checked(stamp, None, "Its name is not Unicode. Rename it.")
    try:
        if not _is_regular(found.paths[0]):
            return _Checked(stamp, None, f"{found.paths[0]}: This is neither a file nor a folder that can be read.")
        try:
            model = _model(table)
        except ValidationError:
            # What Ollama takes need not be within the bounds of a configuration.
            table = {key: value for key, value in table.items() if key not in ("sampling", "device")}
            model = _model(table)
        files = _files(config, model)
        if files.projector is not None and found.without_projector:
            # It lies beside several models, and nothing in them names the one that it belongs to.
            table["kind"] = "text"
            _files(config, _model(table))
    except ValidationError as problem:
        return _Checked(stamp, None, f"It cannot be configured: {problem.errors()[0]['msg']}.")
    except UnusableModel as problem:
        return _Checked(stamp, None, str(problem))
    return _Checked(stamp, table)


def _files(config: Config, model: Model) -> ModelFiles:
    stores = Stores(Hub(is_offline=True))
    alone = config.model_copy(update={"models": (model,)})
    return estimate_files(plan_of(alone, model, stores, lambda _: True), stores)


def _model(table: Mapping[str, Any]) -> Model:
    model = Model.model_validate(dict(table))
    model.mark_origin("discovered")
    return model


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_regular(path: Path) -> bool:
    """Whether a path is a file or a folder: opening a pipe would wait for its writer."""
    try:
        return path.is_file() or path.is_dir()
    except OSError:
        return False
