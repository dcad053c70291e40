"""Models that requests have added: a file for each beside the configuration, which people may read and edit.

A file holds one ``[[models]]`` table with an alias. For a model that was downloaded it has a table ``[download]``, too:
deleting the model deletes the download.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelyard.config.document import UnreadableDocument, read_document
from modelyard.config.layers import with_models, without_models
from modelyard.config.load import validate_config
from modelyard.config.model import Model
from modelyard.config.paths import user_folder
from modelyard.errors import ConfigError
from modelyard.system.private_files import make_private_folder, write_private

if TYPE_CHECKING:
    from modelyard.config.schema import Config

logger = logging.getLogger(__name__)

_HEAD: Final = (
    "# Added by a request to the server. Edit it, or delete the file to remove the model; then: modelyard reload"
)
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_SLUG: Final = 100


@dataclass(frozen=True, slots=True)
class DownloadedFiles:
    """What was downloaded for a model: a repository of the hub, and names of its files."""

    repository: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AddedModel:
    """A model that a request has added: its file, its configuration, and what was downloaded for it, if anything."""

    path: Path
    model: Model
    download: DownloadedFiles | None


def added_folder(file: Path | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder of added models: ``models.d`` beside ``models.toml``, else one in the user's configuration.

    Args:
        file: the configuration of the server; None: it has none.
        environ: the environment.

    Returns:
        None where the user has no home folder.
    """
    if file is not None:
        return file.absolute().with_suffix(".d")
    try:
        return user_folder(environ, "XDG_CONFIG_HOME", ".config") / "modelyard" / "models.d"
    except ConfigError:
        return None


def added_model(table: Mapping[str, Any], base: Path | None = None) -> Model:
    """Return the model of a table that a request has given.

    Raises:
        ConfigError: the table breaks the schema or a rule.
    """
    (model,) = validate_config({"models": [dict(table)]}, source=str(table.get("alias", "model")), base=base).models
    model.mark_origin("added")
    return model


class AddedModels:
    """The added models in a folder, and those that are still being downloaded. Its methods may block on files.

    Args:
        folder: has a file for each; it is made when the first is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pending: dict[str, Model] = {}

    def served(self, config: Config) -> Config:
        """Return the configuration with the added models in place of those that it had, behind its own."""
        models = {added.model.id: added.model for added in self.entries()} | self._pending
        return with_models(without_models(config, "added"), list(models.values()))

    def entries(self) -> list[AddedModel]:
        """Return all added models, by the names of their files. A file with a mistake is left out with a warning."""
        try:
            paths = sorted(path for path in self.folder.iterdir() if path.suffix == ".toml")
        except FileNotFoundError:
            return []
        except OSError as error:
            logger.warning("The folder of added models, %s, cannot be read: %s", self.folder, error.strerror)
            return []
        return list(self._read(paths))

    def find(self, name: str) -> AddedModel | None:
        """Return the added model of that id; None without one."""
        return next((added for added in self.entries() if added.model.id == name), None)

    def begin(self, model: Model) -> None:
        """Serve a model that is being downloaded, also after the configuration is read again."""
        self._pending[model.id] = model

    def give_up(self, name: str) -> None:
        """Drop a model of ``begin``."""
        self._pending.pop(name, None)

    def keep(self, model: Model, table: Mapping[str, Any], download: DownloadedFiles | None = None) -> Path:
        """Write the file of a model, whole or not at all, and return its path.

        Raises:
            OSError: it cannot be written.
        """
        make_private_folder(self.folder)
        known = self.find(model.id)
        path = self.folder / f"{_slug(model.id)}.toml" if known is None else known.path
        write_private(path, _toml(table, download).encode())
        self._pending.pop(model.id, None)
        return path

    def keep_template(self, name: str, template: str) -> Path:
        """Write the chat template of a model beside its file, and return its path.

        Raises:
            OSError: it cannot be written.
        """
        make_private_folder(self.folder)
        path = self.folder / f"{_slug(name)}.jinja"
        write_private(path, template.encode())
        return path

    def remove(self, added: AddedModel) -> None:
        """Delete the file of a model.

        Raises:
            OSError: it cannot be deleted.
        """
        added.path.unlink(missing_ok=True)
        with suppress(OSError):
            added.path.with_suffix(".jinja").unlink(missing_ok=True)

    def _read(self, paths: list[Path]) -> Iterator[AddedModel]:
        seen: set[str] = set()
        for path in paths:
            try:
                document = read_document(path)
                if document.mistakes:
                    raise ConfigError(str(path), document.mistakes, path)
                values = dict(document.values)
                download = _download(values.pop("download", None))
                models = validate_config(values, source=str(path), base=self.folder).models
            except UnreadableDocument as unreadable:
                logger.warning("%s is left out: %s", path, unreadable.problem)
            except ConfigError as error:
                logger.warning("%s", error.in_one_line)
            else:
                for model in models:
                    if model.id not in seen:
                        seen.add(model.id)
                        model.mark_origin("added")
                        yield AddedModel(path, model, download)


def _slug(name: str) -> str:
    """Return a name of a file, different for each name of a model, that shows the model's name as far as it may."""
    safe = _UNSAFE.sub("-", name)[:_MAX_SLUG].strip(".-") or "model"
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _download(value: object) -> DownloadedFiles | None:
    match value:
        case {"repository": str(repository), "files": [*files]} if all(isinstance(file, str) for file in files):
            return DownloadedFiles(repository, tuple(map(str, files)))
    return None


def _toml(table: Mapping[str, Any], download: DownloadedFiles | None) -> str:
    lines = [_HEAD, "", "[[models]]"]
    lines += [f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, inner in table.items():
        if isinstance(inner, dict) and inner:
            lines += ["", f"[models.{key}]", *(f"{name} = {_value(value)}" for name, value in inner.items())]
    if download is not None:
        lines += ["", "# What was downloaded for it, and is deleted with it.", "[download]"]
        lines += [f"repository = {_value(download.repository)}", f"files = {_value(list(download.files))}"]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    """Return a value in TOML. JSON's escapes are TOML's; ``$`` would begin a reference to a variable."""
    match value:
        case bool():
            return "true" if value else "false"
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            return "{ " + ", ".join(f"{_value(str(key))} = {_value(inner)}" for key, inner in value.items()) + " }"
        case int() | float():
            return repr(value)
        case _:
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f").replace("$", "$$")
