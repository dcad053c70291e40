"""What each quantisation of a model would take on this machine, and give, and which one is recommended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final, Literal, TypeAlias

from modelyard.config import Config
from modelyard.engine.hosts.speed_trial import Speed, SpeedTask
from modelyard.errors import UnusableModel
from modelyard.formats.gguf.constants import TENSOR_TYPES
from modelyard.hub import FilePlan, ModelFiles, Stores, estimate_files, plan_options
from modelyard.protocol.placement import Placement
from modelyard.yard.estimate import budgeted_devices
from modelyard.yard.from_config import stores_of
from modelyard.yard.memory.arrangement import arranged
from modelyard.yard.memory.fit_context import fit_alone
from modelyard.yard.memory.fit_quant import LEAST_BITS
from modelyard.yard.memory.layer_shapes import stand_in_shapes
from modelyard.yard.runtime.attention import flash_attention
from modelyard.yard.runtime.fitting import bits_of, context_range, placing, with_chosen_context, with_model
from modelyard.yard.runtime.model_choices import choices_of
from modelyard.yard.runtime.model_spec import ModelSpec, SpecFiles, file_request

Profile: TypeAlias = Literal["quality", "balanced", "fast"]

NEAR: Final = 0.8
"""Part of the best speed that "balanced" accepts for more bits."""

_FULL_PRECISION: Final = "BF16"


@dataclass(frozen=True, slots=True)
class TunedType:
    """One type that the weights of a model can have, on this machine.

    Attributes:
        label: of the type.
        quant: the value of ``quant`` for it; None: full precision.
        bits: bits per weight, on average.
        download_bytes: what is to be downloaded.
        memory_bytes: what the model takes with ``context_length``, of the host and devices together.
        context_length: tokens of its context, as a server with this model alone would choose it.
        is_fitting: whether it fits the budgets.
        tokens_per_s: of one stream, after a short prompt; None where it was not measured.
        prefill_tokens_per_s: of a prompt; None where it was not measured.
        problem: why it was not measured; "" where it was.
    """

    label: str
    quant: str | None
    bits: float
    download_bytes: int
    memory_bytes: int
    context_length: int
    is_fitting: bool
    tokens_per_s: float | None = None
    prefill_tokens_per_s: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Tuning:
    """The types of one model.

    Attributes:
        source: the configured name, path or hub id.
        types: the one with the most bits first.
        recommended: number of one of them; None where none fits.
        reason: why, without a full stop.
        budget_bytes: of all pools together.
    """

    source: str
    types: tuple[TunedType, ...]
    recommended: int | None
    reason: str
    budget_bytes: int

    def as_facts(self) -> dict[str, Any]:
        """Return the attributes for JSON."""
        return asdict(self)


def recommend(types: Sequence[TunedType], profile: Profile) -> tuple[int | None, str]:
    """Return the number of the recommended type, None where none fits, and why.

    Types of less than about four bits are recommended only where no other fits.

    Args:
        types: the one with the most bits first.
        profile: "quality": the most bits; "fast": the most tokens per second; "balanced": the most bits with nearly
            that speed. Where the speed was not measured, all three are as "quality".
    """
    fitting = [number for number, each in enumerate(types) if each.is_fitting]
    if not fitting:
        return None, "none fits the memory"
    if len(types) == 1:
        return 0, "the only type that these files can be had in"
    good = [number for number in fitting if types[number].bits >= LEAST_BITS] or fitting
    speeds = {number: speed for number in good if (speed := types[number].tokens_per_s) is not None}
    if profile == "quality" or not speeds:
        return good[0], "the most bits per weight that fit the memory"
    best = max(speeds.values())
    if profile == "fast":
        return max(speeds, key=lambda number: speeds[number]), "the most tokens per second"
    chosen = next(number for number in speeds if speeds[number] >= NEAR * best)
    return chosen, f"the most bits per weight with at least {NEAR:.0%} of the best speed"


def tune(
    config: Config,
    profile: Profile,
    measure: Callable[[SpeedTask], Speed] | None,
    on_type: Callable[[int, int, str], None] = lambda *_: None,
) -> Tuning:
    """Return what each type of the only model of a configuration takes and gives.

    Args:
        config: the configuration.
        profile: what counts for the recommendation.
        measure: returns a speed; None: nothing is measured.
        on_type: called before each type with the number of those that are done, of all, and its label.

    Raises:
        UnusableModel: the model has no types to choose from, or cannot be served.
        ConfigError: a budget is of a device that does not exist.
    """
    spec = ModelSpec(config, config.models[0])
    stores = stores_of(config)
    found, budgets = budgeted_devices(config)
    plans = plan_options(file_request(config, spec.model), stores)
    types: list[TunedType] = []
    for number, (plan, files) in enumerate(_distinct(plans, stores)):
        on_type(number, len(plans), files.quantization)
        both = SpecFiles(files, None)
        place = placing(spec, partial(choices_of, files=both, devices=found), is_isolated=lambda: False)
        context = fit_alone(context_range(spec.model, files, place), budgets)
        sized = with_model(spec, with_chosen_context(spec.model, context))
        choices = choices_of(sized, both, found)
        fitting = arranged({"": choices}, budgets)
        placed = fitting.get("", choices[0])
        entry = TunedType(
            files.quantization,
            plan.request.quant,
            bits_of(files.quantization),
            plan.download_bytes,
            placed.total_bytes,
            context.length,
            bool(fitting),
        )
        if measure is not None and fitting:
            entry = _measured(entry, files, flash_attention(config, spec.model, files), placed.placement, measure)
        types.append(entry)
    recommended, reason = recommend(types, profile)
    return Tuning(spec.model.model_id, tuple(types), recommended, reason, sum(budgets.values()))


def _distinct(plans: Sequence[FilePlan], stores: Stores) -> Iterator[tuple[FilePlan, ModelFiles]]:
    """Yield the plans with what is known of their files, of several with one type the first."""
    seen = set()
    for plan in plans:
        files = estimate_files(plan, stores)
        if files.quantization not in seen:
            seen.add(files.quantization)
            yield plan, files


def _measured(
    entry: TunedType,
    files: ModelFiles,
    flash_attn: bool | None,
    placement: Placement,
    measure: Callable[[SpeedTask], Speed],
) -> TunedType:
    shapes = stand_in_shapes(files.header)
    if shapes is None:
        return replace(entry, problem="its shapes are not known before it is downloaded or converted")
    try:
        speed = measure(SpeedTask(shapes, weight_type(files.quantization), flash_attn, placement))
    except UnusableModel as failure:
        return replace(entry, problem=str(failure))
    return replace(
        entry, tokens_per_s=round(1 / speed.token_s, 1), prefill_tokens_per_s=round(1 / speed.prefill_token_s, 1)
    )


def weight_type(label: str) -> str:
    """Return the type that most weights of a file with that label have, such as "Q4_K" for "Q4_K_M"."""
    names = [kind.name for kind in TENSOR_TYPES.values() if label.upper().removeprefix("UD-").startswith(kind.name)]
    return max(names, key=len, default=_FULL_PRECISION)
