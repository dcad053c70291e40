"""What the configuration leaves open of models, and what is chosen for it: the length of the context, and the type.

A choice takes the place of the key in the model's specification, so that footprint, trial, settings and listing all see
one number. It is made when the models are sized at the start or for a changed configuration, and stays: clients rely on
the context length that is listed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeAlias

from modelyard.config import Config, Model
from modelyard.engine.hosts.trial_task import PROCESS_BYTES
from modelyard.engine.pooling.shape import DEFAULT_WHOLE_INPUT
from modelyard.engine.settings import DEFAULT_CONTEXT
from modelyard.hub import POOLED_KINDS, ModelFiles
from modelyard.hub.select.isq import BITS
from modelyard.hub.sources.quant_labels import bits, normalise
from modelyard.yard.memory.fit_context import SHORTEST_CONTEXT, ContextRange, FittedContext
from modelyard.yard.memory.fit_quant import QuantOption
from modelyard.yard.memory.footprint import Choices, Footprint
from modelyard.yard.runtime.model_spec import ModelSpec

FULL_PRECISION_BITS = 16.0
"""Bits per weight of a type that is not known here."""


Placing: TypeAlias = Callable[[Model], Sequence[Footprint]]
"""Returns the footprints of a model in all placements, the best first."""


@dataclass(frozen=True, slots=True)
class FittedQuant:
    """The quantisation that was chosen for a model.

    Attributes:
        quant: for ``quant``; None: full precision.
        label: of the type.
        reason: why, without a full stop.
    """

    quant: str | None
    label: str
    reason: str


def placing(spec: ModelSpec, choices: Callable[[ModelSpec], Choices], *, is_isolated: Callable[[], bool]) -> Placing:
    """Return what gives the footprints of a model in all placements, the best first, whatever its context.

    Args:
        spec: the model.
        choices: returns its footprints on a thread, by its specification.
        is_isolated: returns whether its engine has a process of its own. Asked once, and only where it counts.
    """
    isolated = cache(is_isolated)

    def placed(model: Model) -> Choices:
        found = choices(with_model(spec, model))
        return tuple(each.in_process() for each in found) if isolated() else found

    return placed


def context_range(model: Model, files: ModelFiles, footprints: Placing, *, is_tried: bool = False) -> ContextRange:
    """Return the lengths that the context of a model may have.

    Args:
        model: as it is configured.
        files: its files.
        footprints: returns its footprints in all placements, of the model with a length.
        is_tried: whether its files are tried in a process of their own before they are loaded.
    """

    def at(length: int) -> Sequence[Footprint]:
        return footprints(with_context(model, length))

    trial_bytes = PROCESS_BYTES if is_tried else 0
    wanted, trained = model.device.max_seq_len, files.header.context_length or DEFAULT_CONTEXT
    if isinstance(wanted, int):
        return ContextRange(wanted, wanted, at, trial_bytes=trial_bytes)
    if files.kind in POOLED_KINDS and wanted is None:
        # What an engine of them takes by itself depends on how they pool.
        why = "the default of models that generate no text"
        return ContextRange(0, 0, lambda _: footprints(model), why, trial_bytes)
    whole = "all that the model was trained on"
    if wanted == "auto":
        shortest = DEFAULT_WHOLE_INPUT if files.kind in POOLED_KINDS else SHORTEST_CONTEXT
        return ContextRange(trained, min(trained, shortest), at, whole, trial_bytes)
    longest = min(trained, DEFAULT_CONTEXT)
    why = whole if longest == trained else f"the default; the model was trained on {trained:,}"
    return ContextRange(longest, min(longest, SHORTEST_CONTEXT), at, why, trial_bytes)


def with_context(model: Model, length: int) -> Model:
    """Return the model with a context of so many tokens; 0: with what is configured."""
    if not length:
        return model
    return model.model_copy(update={"device": model.device.model_copy(update={"max_seq_len": length})})


def with_chosen_context(model: Model, chosen: FittedContext) -> Model:
    """Return the model with the chosen context. One that has its default keeps the key unset."""
    is_default = model.device.max_seq_len is None and not chosen.is_shortened
    return model if is_default else with_context(model, chosen.length)


def with_quant(model: Model, quant: str | None) -> Model:
    """Return the model with that quantisation; None: with full precision."""
    return model.model_copy(update={"quantization": model.quantization.model_copy(update={"quant": quant})})


def with_model(spec: ModelSpec, model: Model) -> ModelSpec:
    """Return the specification with ``model`` in place of the one with its id: it may be the draft model of another."""
    config = with_model_in(spec.config, model)
    return replace(spec, config=config, model=model if spec.model.id == model.id else spec.model)


def with_model_in(config: Config, model: Model) -> Config:
    """Return the configuration with ``model`` in place of the one with its id."""
    models = tuple(model if each.id == model.id else each for each in config.models)
    return config.model_copy(update={"models": models})


def quant_option(files: ModelFiles, lengths: ContextRange) -> QuantOption:
    """Return a type that a model can have, by its files in that type.

    Args:
        files: the files.
        lengths: of its context. Up to the default length they count for the choice of a type.
    """
    usual = min(lengths.longest, max(lengths.shortest, DEFAULT_CONTEXT))
    label = files.quantization
    return QuantOption(
        label, bits_of(label), tuple(lengths.footprints(usual)), tuple(lengths.footprints(lengths.shortest))
    )


def bits_of(label: str) -> float:
    """Return the bits per weight of a type, on average over a file."""
    wanted = normalise(label.removeprefix("UD-"))
    known = next((size for name, size in BITS.items() if normalise(name) == wanted), None)
    return known or float(bits(label) or FULL_PRECISION_BITS)


def smaller_ones(options: Sequence[tuple[str | None, QuantOption]]) -> list[tuple[str | None, QuantOption]]:
    """Return the options without those that take no less memory than the one before.

    A type of fewer bits may take more: weights of some types are kept a second time, in the order that the processor
    computes them in.
    """
    kept: list[tuple[str | None, QuantOption]] = []
    for quant, option in options:
        if not kept or option.bytes < kept[-1][1].bytes:
            kept.append((quant, option))
    return kept
