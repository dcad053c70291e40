"""Chooses what the configuration leaves open of models, and keeps the choices; see ``fitting``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from modelyard.config import Model
from modelyard.errors import UnusableModel
from modelyard.hub import ModelFiles
from modelyard.protocol.placement import HOST_NAME, Placement
from modelyard.yard.memory.arrangement import arranged, arranged_as, preferring
from modelyard.yard.memory.fit_context import ContextRange, FittedContext, fit_alone, fit_together
from modelyard.yard.memory.fit_quant import QuantOption, fit_quants
from modelyard.yard.memory.footprint import Choices, Footprint
from modelyard.yard.runtime.adapter_files import adapters_ahead
from modelyard.yard.runtime.fitting import (
    FittedQuant,
    quant_option,
    smaller_ones,
    with_chosen_context,
    with_model,
    with_quant,
)
from modelyard.yard.runtime.model_checks import side_by_side
from modelyard.yard.runtime.model_files import ModelFileProvider
from modelyard.yard.runtime.model_spec import ModelSpec, SpecFiles, draft_of, file_request

logger = logging.getLogger(__name__)

KEPT_PART: Final = 0.8
"""A context is kept as long as the one that would be chosen now has at least this part of it, and not much more."""


class ModelFitter:
    """Chooses contexts and quantisations for the models of a yard. Models are named as in the residency.

    Args:
        specs: returns the models that are known; a choice is written into them.
        files: finds their files.
        range_of: returns the lengths that the context of a model on its files may have. Called on any thread.
        budgets: returns the bytes of each pool of memory.
        read: returns the files of a known model, which are on this machine.

    Attributes:
        contexts, quants: what was chosen, by model.
        footprints: of the models that were sized, in the placements that they have beside the others, or the best.
        placements: where the models are put that were arranged together.
    """

    def __init__(
        self,
        specs: Callable[[], dict[str, ModelSpec]],
        files: ModelFileProvider,
        range_of: Callable[[ModelSpec, SpecFiles], ContextRange],
        budgets: Callable[[], Mapping[str, int]],
        read: Callable[[str], Awaitable[SpecFiles]],
    ) -> None:
        self.contexts: dict[str, FittedContext] = {}
        self.quants: dict[str, FittedQuant] = {}
        self.footprints: dict[str, Footprint] = {}
        self.placements: dict[str, Placement] = {}
        self._specs_of = specs
        self._files = files
        self._range = range_of
        self._budgets = budgets
        self._read = read
        # By model: as it was before its context was chosen.
        self._open: dict[str, Model] = {}
        # Models whose contexts were chosen by an estimate of their files.
        self._estimated: set[str] = set()

    @property
    def _specs(self) -> dict[str, ModelSpec]:
        return self._specs_of()

    async def choose_quants(self, names: list[str]) -> None:
        """Choose the types of those of ``names`` that leave them open, so that all that are loaded at the start fit.

        That of a model on demand, and of a single one for the host alone, is chosen when its files are looked up.

        Raises:
            UnusableModels: some of them cannot be had in any type.
        """
        for name in names:
            self._specs[name] = self._with_known_draft(self._specs[name])
        wanted = [name for name in names if self._specs[name].model.load == "startup"]
        is_open = {name for name in wanted if self._specs[name].model.quantization.quant == "auto"}
        beside = self._beside(names)
        is_single = len(wanted) + len(beside) < 2
        if not is_open or (is_single and self._budgets().keys() <= {HOST_NAME}):
            return
        ids = {name: self._specs[name].model.id for name in wanted}
        options = await side_by_side(ids, lambda name: self._quant_options(name, is_open=name in is_open))
        pinned = [name for name in wanted if self._specs[name].model.pinned]
        fitted = await asyncio.to_thread(
            fit_quants,
            {name: [option for _, option in some] for name, some in options.items()},
            self._budgets(),
            beside,
            pinned,
        )
        for name in is_open:
            quant, option = options[name][fitted.chosen[name]]
            self._set_quant(name, FittedQuant(quant, option.label, fitted.reasons[name]))

    async def choose_contexts(self, read: Mapping[str, SpecFiles], *, is_together: bool) -> None:
        """Choose the contexts of models that have none yet.

        Args:
            read: their files, in the order of the models.
            is_together: whether those of them that are loaded at the start are to fit together.
        """
        undecided = {
            name: (self._specs[name], files)
            for name, files in read.items()
            if name not in self.contexts and name in self._specs
        }
        startup = [name for name, (spec, _) in undecided.items() if is_together and spec.model.load == "startup"]
        pinned = [name for name in startup if self._specs[name].model.pinned]
        beside, budgets = self._beside(list(undecided)), self._budgets()
        staying = {name: self._pinned(but=name) for name in undecided}

        def choose() -> dict[str, FittedContext]:
            ranges = {name: self._range(spec, files) for name, (spec, files) in undecided.items()}
            chosen = fit_together({name: ranges[name] for name in startup}, budgets, beside, pinned)
            return {name: chosen.get(name) or fit_alone(each, budgets, staying[name]) for name, each in ranges.items()}

        for name, chosen in (await asyncio.to_thread(choose)).items():
            # A model may be removed meanwhile.
            if name in self._specs:
                self._set_context(name, chosen)

    def arrange(self, sized: Mapping[str, Choices]) -> dict[str, Choices]:
        """Return the choices of new or changed models, so that those that are loaded at the start find room together.

        They are in the order to load them in.
        Of equally fast placements that one comes first which a model has beside the others.
        """
        known = [name for name in sized if name in self._specs]
        wanted = {name: sized[name] for name in known if self._specs[name].model.load == "startup"}
        planned = {name: self.contexts[name].placement for name in wanted if name in self.contexts}
        placed = arranged_as(planned, wanted, self._budgets(), self._beside(known))
        self.placements |= {name: footprint.placement for name, footprint in placed.items()}
        in_order = [*placed, *(name for name in sized if name not in placed)]
        return {name: self.with_preferred(name, sized[name]) for name in in_order}

    def with_preferred(self, name: str, choices: Choices) -> Choices:
        """Return the choices of a model with its placement beside the others before all that are as fast."""
        placement = self.placements.get(name)
        if name in self._specs:
            self.footprints[name] = next((each for each in choices if each.placement == placement), choices[0])
        return preferring(choices, placement)

    async def estimate_context(self, name: str, files: SpecFiles) -> None:
        """Choose the context of a model that has none yet by an estimate of its files; its load chooses again."""
        if name not in self.contexts:
            await self.choose_contexts({name: files}, is_together=False)
            self._estimated.add(name)

    async def settle_context(
        self, name: str, files: SpecFiles, *, is_replaced: bool, has_other_memory: bool = False
    ) -> None:
        """Choose the context of a model that is to be loaded, if it has none, or can have the present one no longer.

        Args:
            name: the model.
            files: its files.
            is_replaced: whether they are others than those that it was sized with before.
            has_other_memory: whether the memory of devices has changed since. The context is then chosen again, too,
                unless about the same would be chosen.
        """
        spec = self._specs.get(name)
        if spec is None:
            return
        is_stale = is_replaced or name in self._estimated
        if is_stale or (self.is_chosen(name) and not await asyncio.to_thread(self._fits_alone, spec, files)):
            self._unset_context(name)
        elif has_other_memory and self.is_open(name):
            await self._choose_again(name, files)
        await self.choose_contexts({name: files}, is_together=False)

    async def _choose_again(self, name: str, files: SpecFiles) -> None:
        """Choose the context of a model anew, beside those that are wanted with it, unless it hardly differs."""
        read, budgets = {name: files}, self._budgets()
        together = self._together_with(name)
        for other in together:
            if other != name:
                with contextlib.suppress(UnusableModel):
                    read[other] = await self._read(other)
        opened = {other: self._opened(other) for other in [*together, name] if other in read and other in self._specs}
        pinned = [other for other in opened if opened[other].model.pinned]
        staying = self._pinned(but=name)

        def choose() -> FittedContext:
            ranges = {other: self._range(spec, read[other]) for other, spec in opened.items()}
            if name in together:
                return fit_together(ranges, budgets, (), pinned)[name]
            return fit_alone(ranges[name], budgets, staying)

        present = self.contexts.get(name)
        if present is None or name not in opened:
            return
        chosen = await asyncio.to_thread(choose)
        is_longer = chosen.length * KEPT_PART > present.length or (present.is_shortened and not chosen.is_shortened)
        if (is_longer or chosen.length < KEPT_PART * present.length) and self.contexts.get(name) is present:
            self._unset_context(name)
            self._set_context(name, chosen)
            if chosen.placement is not None:
                self.placements[name] = chosen.placement

    def _together_with(self, name: str) -> list[str]:
        """Return the models that are loaded at the start with ``name``, itself included; [] if it is none of them."""
        config = self._specs[name].config
        current = {self._specs[other].model.id: other for other in self.footprints if other in self._specs}
        current[self._specs[name].model.id] = name
        names = [current[model.id] for model in config.models if model.load == "startup" and model.id in current]
        return names if name in names else []

    def _opened(self, name: str) -> ModelSpec:
        """Return the specification of a model as it was before its context was chosen."""
        spec = self._specs[name]
        return with_model(spec, self._open[name]) if name in self._open else spec

    def is_open(self, name: str) -> bool:
        """Whether the context of a model is chosen by what fits: its configuration has no number for it."""
        return name in self._open and not isinstance(self._open[name].device.max_seq_len, int)

    def retuned(self, name: str, spec: ModelSpec) -> ModelSpec:
        """Return the specification of a model whose other settings have changed, with what was chosen for it."""
        spec = self._with_known_draft(spec)
        if (quant := self.quants.get(name)) is not None:
            spec = with_model(spec, with_quant(spec.model, quant.quant))
        if (context := self.contexts.get(name)) is not None:
            self._open[name] = spec.model
            spec = with_model(spec, with_chosen_context(spec.model, context))
        return spec

    def keep_quant(self, old: str, new: str) -> None:
        """Give ``new``, a new version of ``old``, the quantisation that was chosen for ``old``, if one was."""
        if (quant := self.quants.get(old)) is not None:
            self.quants[new] = quant
            self._specs[new] = with_model(self._specs[new], with_quant(self._specs[new].model, quant.quant))

    def is_chosen(self, name: str) -> bool:
        """Whether the context of a model was chosen by what fits: it is "auto", or was shortened."""
        chosen = self.contexts.get(name)
        return chosen is not None and (chosen.is_shortened or self._open[name].device.max_seq_len == "auto")

    def reason(self, name: str) -> str:
        """Return why the context of a model is so long, if that was chosen by what fits; else ""."""
        return self.contexts[name].reason if self.is_chosen(name) else ""

    def discard(self, name: str) -> None:
        """Drop what is known of a model."""
        for known in (self.contexts, self.quants, self.footprints, self.placements, self._open):
            known.pop(name, None)
        self._estimated.discard(name)

    def _beside(self, names: Sequence[str]) -> list[Footprint]:
        """Return the footprints of the models that are wanted at the start beside ``names``, which are new or changed.

        Earlier versions of changed models, and models that are not configured any more, do not count.
        """
        configured = {model.id for name in names for model in self._specs[name].config.models}
        replaced = {self._specs[name].model.id for name in names}
        return [
            footprint
            for name, footprint in self.footprints.items()
            if name not in names
            and self._specs[name].model.load == "startup"
            and self._specs[name].model.id in configured - replaced
        ]

    def _pinned(self, but: str) -> list[Footprint]:
        """Return the footprints of the pinned models that were sized, without that of ``but``."""
        return [
            footprint for name, footprint in self.footprints.items() if name != but and self._specs[name].model.pinned
        ]

    def _fits_alone(self, spec: ModelSpec, files: SpecFiles) -> bool:
        lengths = self._range(spec, files)
        return bool(arranged({"": lengths.footprints(lengths.longest)}, self._budgets()))

    def _set_context(self, name: str, chosen: FittedContext) -> None:
        spec = self._specs[name]
        self.contexts[name], self._open[name] = chosen, spec.model
        self._specs[name] = with_model(spec, with_chosen_context(spec.model, chosen))
        if self.is_chosen(name):
            logger.info("%s: a context of %s tokens, %s", spec.model.id, f"{chosen.length:,}", chosen.reason)

    def _unset_context(self, name: str) -> None:
        if self.contexts.pop(name, None) is not None and name in self._specs:
            self._specs[name] = with_model(self._specs[name], self._open.pop(name))
        self._estimated.discard(name)

    def _set_quant(self, name: str, chosen: FittedQuant) -> None:
        """Give a model its quantisation, also where it is the draft model of another."""
        model = with_quant(self._specs[name].model, chosen.quant)
        logger.info("%s: %s, %s", model.id, chosen.label, chosen.reason)
        self.quants[name] = chosen
        for other, spec in list(self._specs.items()):
            draft = draft_of(spec)
            if other == name or (draft is not None and draft.id == model.id):
                self._specs[other] = with_model(spec, model)

    def _with_known_draft(self, spec: ModelSpec) -> ModelSpec:
        """Return the specification with the quantisation that its draft model has, if that was chosen before."""
        draft = draft_of(spec)
        if draft is None or draft.quantization.quant != "auto":
            return spec
        ids = {other.model.id: name for name, other in self._specs.items()}
        chosen = self.quants.get(ids.get(draft.id, ""))
        return spec if chosen is None else with_model(spec, with_quant(draft, chosen.quant))

    async def _quant_options(self, name: str, *, is_open: bool) -> list[tuple[str | None, QuantOption]]:
        spec = self._specs[name]
        request = file_request(spec.config, spec.model)
        if is_open:
            found = await self._files.options(request)
        else:
            found = [(request.quant, await self._files.estimate(request, lambda _: True))]

        draft = await self._draft_files(spec)
        adapters = await asyncio.to_thread(adapters_ahead, spec.model)

        def option(files: ModelFiles) -> QuantOption:
            return quant_option(files, self._range(spec, SpecFiles(files, draft, adapters)))

        return smaller_ones([(quant, await asyncio.to_thread(option, files)) for quant, files in found])

    async def _draft_files(self, spec: ModelSpec) -> ModelFiles | None:
        """Return the files of the draft model, if there is one; of one whose type is open, the smallest.

        One that is loaded at the start, too, counts with its own type besides.
        """
        if (draft := draft_of(spec)) is None:
            return None
        request = file_request(spec.config, draft)
        try:
            if draft.quantization.quant == "auto":
                return (await self._files.options(request))[-1][1]
            return await self._files.estimate(request, lambda _: True)
        except UnusableModel:
            # The load of its model reports what is wrong with it.
            return None
