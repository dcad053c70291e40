"""Adds models to a yard that serves, and removes them: by a download, a copy, or a change of another model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from modelyard.config import Config, Model
from modelyard.config.added import AddedModels, DownloadedFiles, added_model
from modelyard.config.layers import with_models
from modelyard.config.model_reference import parse_model_reference
from modelyard.config.rules import RESERVED_NAME
from modelyard.errors import (
    InvalidRequest,
    ModelLoadFailed,
    ModelNotFound,
    RepositoryUnavailable,
    UnsupportedOperation,
    UnusableModel,
)
from modelyard.hub import Downloads, FilePlan, Stores, estimate_files
from modelyard.hub.sources.adapter_uploads import drop_adapters, keep_adapters
from modelyard.hub.sources.uploads import Uploads
from modelyard.yard.from_config import stores_of
from modelyard.yard.pulls import Pull, PullSteps
from modelyard.yard.runtime.adapter_files import find_adapters
from modelyard.yard.runtime.model_spec import plan_of
from modelyard.yard.yard import Yard

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


@dataclass
class Additions:
    """Adds and removes models. Use it on the event loop of the yard.

    Attributes:
        yard: the models that are served.
        added: the models that requests have added, on disk.
        uploads: files that clients have sent.
        stores: where files come from; None: as the configuration says.
    """

    yard: Yard
    added: AddedModels
    uploads: Uploads = field(default_factory=Uploads)
    stores: Stores | None = None
    _pulls: dict[str, Pull] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def pull(self, name: str, *, waits: bool = True) -> PullSteps:
        """Return the progress of downloading a model, which is served when it ends, and was before if it is there.

        Whoever closes the progress gives the download up, unless others read, or it was begun with ``waits = False``.

        Args:
            name: a repository of the hub, in a form of ``parse_model_reference``; the model's name from then on.
            waits: False: the download goes on by itself, and the progress ends at once.

        Raises:
            ModelNotFound: the name is no repository, or the hub does not have it.
            ModelLoadFailed: it cannot be downloaded: it is gated, the hub is not reached, the disk has no room.
        """
        async with self._turn:
            pull = self._pulls.get(name)
            if pull is None and not self._is_served(name):
                pull = self._pulls[name] = await self._begin(name)
        if pull is not None and not waits:
            pull.is_detached = True
        return PullSteps(self.yard, name, pull if waits else None)

    def is_pulling(self, name: str) -> bool:
        """Whether the model of that name is being downloaded."""
        return name in self._pulls

    async def copy(self, source: str, name: str) -> None:
        """Serve a model under a second name, with its present settings; both share the weights.

        Raises:
            ModelNotFound: there is no model ``source``.
            InvalidRequest: the name belongs to another model.
        """
        async with self._turn:
            model = self.yard.configured(source)
            self._check_name(name)
            known = await asyncio.to_thread(self.added.find, model.id)
            await self._add(_table(model, name), None if known is None else known.download)

    async def create(
        self,
        name: str,
        base: str | Path,
        changes: Mapping[str, Any],
        template: str = "",
        adapters: Mapping[str, Path] | None = None,
    ) -> None:
        """Serve a model with other settings than ``base``, or a file; an added model of that name is replaced.

        Args:
            name: of the new model.
            base: a model that is served, or a file of this machine.
            changes: keys of a ``[[models]]`` table; those of inner tables are joined to the base's.
            template: its chat template in Jinja; "": the base's.
            adapters: files that were sent as its adapters, by their names; its base's are kept, too.

        Raises:
            ModelNotFound: there is no model ``base``.
            InvalidRequest: the name belongs to another model, a setting is invalid, or the file cannot be served.
        """
        async with self._turn:
            download = None
            if isinstance(base, Path):
                base = await self._on_disk(name, partial(self.uploads.claim, base))
                table: dict[str, Any] = {"model_id": str(base), "alias": name, "load": "on-demand"}
            else:
                model = self.yard.configured(base)
                known = await asyncio.to_thread(self.added.find, model.id)
                table, download = _table(model, name), None if known is None else known.download
            for key, value in changes.items():
                table[key] = {**table.get(key, {}), **value} if isinstance(value, dict) else value
            present = await asyncio.to_thread(self.added.find, name)
            if present is None:
                self._check_name(name)
            if template:
                path = await self._on_disk(name, partial(self.added.keep_template, name, template))
                table["chat_template"] = str(path)
            if adapters:
                present_ones = table.get("adapters", [])
                taken = [each["name"] for each in present_ones]
                kept = await self._on_disk(name, partial(keep_adapters, adapters, self.uploads, taken))
                table["adapters"] = [*present_ones, *kept]
            try:
                await self._add(table, download)
                if present is not None:
                    await self._drop_adapters(present.model.id, _adapter_paths(present.model))
            except BaseException:
                await self._drop_adapters(name, [Path(each["path"]) for each in table.get("adapters", ())])
                if isinstance(base, Path) and not self._uses(added_model({"model_id": str(base)})):
                    await self._on_disk(name, partial(self.uploads.remove, base))
                raise

    async def delete(self, name: str) -> None:
        """Remove a model that a request has added, and what was downloaded for it alone; requests for it end first.

        Raises:
            ModelNotFound: there is no such model.
            UnsupportedOperation: the configuration names it, or another program owns it.
            ModelLoadFailed: its files cannot be deleted.
        """
        model = self.yard.configured(name)
        if (pull := self._pulls.get(model.id)) is not None:
            pull.given_up.set()
            await asyncio.wait((pull.task,))
            return
        async with self._turn:
            _check_deletable(model)
            known = await asyncio.to_thread(self.added.find, model.id)
            if known is not None:
                await self._on_disk(model.id, partial(self.added.remove, known))
            await self.yard.revise(lambda config: _without(config, model.id))
            await self._drop_adapters(model.id, _adapter_paths(model))
            if not self._uses(model):
                await self._on_disk(
                    model.id, partial(self._delete_files, model, None if known is None else known.download)
                )
            logger.info("Deleted %s", model.id)

    async def cancel(self, name: str) -> bool:
        """Give up the download of a model; return whether there was one."""
        if (pull := self._pulls.get(name)) is None:
            return False
        pull.given_up.set()
        await asyncio.wait((pull.task,))
        return True

    def _is_served(self, name: str) -> bool:
        try:
            self.yard.configured(name)
        except ModelNotFound:
            return False
        return True

    def _check_name(self, name: str) -> None:
        if name == RESERVED_NAME or self._is_served(name):
            raise InvalidRequest(f"There is a model '{name}' already. Choose another name, or delete it.", "model")

    async def _begin(self, name: str) -> Pull:
        """Look the repository up, so that a mistake is an answer of its own, and start the download."""
        reference = parse_model_reference(name, is_there=lambda _: False)
        if reference.kind != "hub":
            known = tuple(model.id for model in self.yard.config.models)
            raise ModelNotFound(name, self.yard.directory.caller().permitted_models(known))
        table = {"model_id": name, "alias": name, "load": "on-demand"}
        model = added_model(table)
        try:
            plan = await asyncio.to_thread(self._plan, model)
        except RepositoryUnavailable as unavailable:
            if unavailable.why == "missing":
                raise ModelNotFound(name, ()) from unavailable
            raise ModelLoadFailed(name, str(unavailable)) from unavailable
        except UnusableModel as unusable:
            raise InvalidRequest(str(unusable), "model") from unusable
        # Listed at once, with the progress of the download. Requests for it wait for that.
        self.added.begin(model)
        try:
            await self.yard.revise(lambda config: with_models(config, [model]))
        except BaseException:
            self.added.give_up(model.id)
            raise
        given_up = asyncio.Event()
        task = asyncio.create_task(self._download(model, table, plan, given_up), name=f"pull {name}")
        # Whoever waits reads how it ends; for the others it is in the log.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return Pull(model, plan.download_bytes, task, given_up)

    def _plan(self, model: Model) -> FilePlan:
        config = self.yard.config
        return plan_of(config, model, self.stores or stores_of(config), lambda _: True)

    async def _download(self, model: Model, table: Mapping[str, Any], plan: FilePlan, given_up: asyncio.Event) -> None:
        try:
            await self._prepare(model, given_up)
            listing = plan.decision.listing
            names = (*plan.decision.names, *filter(None, (plan.projector.name,)))
            hub_id = listing.hub_id
            download = None if hub_id is None else DownloadedFiles(hub_id.repo, names)
            path = await self._on_disk(model.id, partial(self.added.keep, model, table, download))
            logger.info("Added %s, as %s", model.id, path)
        except BaseException as failure:
            self.added.give_up(model.id)
            logger.warning("%s was not added: %s", model.id, failure)
            if not self.yard.closing.is_set():
                # A model without files must not stay.
                await self.yard.revise(lambda config: _without(config, model.id))
            raise
        finally:
            self._pulls.pop(model.id, None)

    async def _prepare(self, model: Model, given_up: asyncio.Event) -> None:
        """Download the files of a model, unless that is given up, or the yard closes before."""
        preparing = asyncio.ensure_future(self.yard.prepare(model.id))
        ends = [asyncio.ensure_future(event.wait()) for event in (given_up, self.yard.closing)]
        try:
            await asyncio.wait((preparing, *ends), return_when=asyncio.FIRST_COMPLETED)
            if not preparing.done():
                why = "The download was given up." if given_up.is_set() else "The server stops."
                raise ModelLoadFailed(model.id, f"{why} A later pull goes on with it.")
            await preparing
        finally:
            for end in ends:
                end.cancel()
            if not preparing.done():
                preparing.cancel()
                await asyncio.wait((preparing,))

    async def _add(self, table: dict[str, Any], download: DownloadedFiles | None) -> None:
        """Check a model, serve it, and write its file."""
        model = added_model(table)
        try:
            await asyncio.to_thread(self._check, model)
        except UnusableModel as unusable:
            raise InvalidRequest(str(unusable), "model") from unusable
        before = await asyncio.to_thread(self.added.find, model.id)
        await self.yard.revise(lambda config: with_models(_without(config, model.id), [model]))
        try:
            await self._on_disk(model.id, partial(self.added.keep, model, table, download))
        except ModelLoadFailed:
            back = [] if before is None else [before.model]
            await self.yard.revise(lambda config: with_models(_without(config, model.id), back))
            raise
        # Listings know from then on what it is.
        await self.yard.survey()

    def _check(self, model: Model) -> None:
        stores = self.stores or stores_of(self.yard.config)
        find_adapters(model, estimate_files(self._plan(model), stores), stores, lambda _: True)

    async def _drop_adapters(self, name: str, paths: Sequence[Path]) -> None:
        await self._on_disk(name, partial(drop_adapters, paths, self.yard.config, self.uploads))

    def _uses(self, model: Model) -> bool:
        """Whether another model is served from the same files, not counting those that were found on this machine."""
        reference = model.reference
        others = (other.reference for other in self.yard.config.models if other.origin != "discovered")
        return any(
            (other.source, other.quant, other.file) == (reference.source, reference.quant, reference.file)
            for other in others
        )

    def _delete_files(self, model: Model, download: DownloadedFiles | None) -> None:
        if download is not None:
            freed = Downloads().delete_files(download.repository, download.files)
            logger.info("Deleted %d bytes of %s", freed, download.repository)
        if model.reference.kind == "path":
            self.uploads.remove(Path(model.source))

    async def _on_disk(self, name: str, work: Callable[[], _Result]) -> _Result:
        try:
            return await asyncio.to_thread(work)
        except (OSError, UnusableModel) as error:
            raise ModelLoadFailed(name, f"The server cannot change its files: {error}") from error


def _adapter_paths(model: Model) -> list[Path]:
    return [adapter.path for adapter in model.adapters]


def _check_deletable(model: Model) -> None:
    if model.origin == "configured":
        raise UnsupportedOperation(
            f"'{model.id}' is named in the configuration. Remove it there, and POST /v1/config/reload; `modelyard rm` "
            "frees the disk.",
            "model",
        )
    if model.origin == "discovered":
        raise UnsupportedOperation(
            f"'{model.id}' was found on this machine, where nothing is changed. Delete it with the program that it "
            "belongs to; the server then drops it.",
            "model",
        )


def _without(config: Config, name: str) -> Config:
    return config.model_copy(update={"models": tuple(model for model in config.models if model.id != name)})


def _table(model: Model, name: str) -> dict[str, Any]:
    """Return the ``[[models]]`` table of a model under another name."""
    table = model.model_dump(mode="json", exclude_unset=True, exclude={"alias", "aliases", "pinned", "load"})
    source = model.source if model.reference.kind == "path" else model.model_id
    return {**table, "model_id": source, "alias": name, "load": "on-demand"}
