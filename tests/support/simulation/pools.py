"""Devices in a simulated world, the placements that models have on them, and what must hold of both.

An invariant returns what is wrong, or None; see ``invariants``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from modelyard.protocol.placement import ON_HOST, Placement
from modelyard.yard.memory.footprint import DeviceShare, Footprint
from modelyard.yard.residency.effects import Free, StartLoad
from modelyard.yard.residency.events import EngineLoadFailed
from modelyard.yard.residency.state import LoadState
from support.simulation.oracle import Moment, Oracle, Phase, exceeded, taken

POOLS = ("g0", "g1", "g2")


class Devices:
    """The devices of a world, drawn from dice of their own, so that the rest of the world is the same without them.

    Attributes:
        pools: their names; () in about half of all worlds.
        planned: models and placements of which it is known exactly what they take.
    """

    def __init__(self, seed: int, *, is_fair: bool) -> None:
        self.rng = random.Random(f"devices {seed}")
        self.plans = random.Random(f"plans {seed}")
        self.sizes = random.Random(f"sizes {seed}")
        self.is_fair = is_fair
        self.pools = POOLS[: self.rng.choice((0, 0, 0, 1, 2, 3))]
        self.planned: set[tuple[str, Placement]] = set()

    def budgets(self, files: Iterable[tuple[Footprint, ...]]) -> dict[str, int]:
        """Return the budgets of the devices: each holds some of the models."""
        most = max(choices[0].total_bytes for choices in files)
        return {pool: self.rng.randint(20, 2 * most) for pool in self.pools}

    def choices(self, whole: Footprint) -> tuple[Footprint, ...]:
        """Return the placements of a model that takes ``whole`` on a host without devices, the fastest first."""
        if not self.pools:
            return (whole,)
        plain = replace(whole, sizes=(), cells=0)
        rng = self.rng
        one, other = rng.choice(self.pools), rng.choice(self.pools)
        kinds = [
            self._on_devices(plain, (one,), rng.uniform(0.001, 0.003)),
            self._on_devices(plain, tuple(dict.fromkeys((one, other))), rng.uniform(0.003, 0.004)),
            self._in_part(plain, one, rng.uniform(0.004, 0.012)),
            replace(whole, placement=ON_HOST, token_s=rng.uniform(0.008, 0.06)),
        ]
        chosen = {kind.placement: kind for kind in rng.sample(kinds, rng.randint(1, len(kinds)))}
        if self.is_fair:
            # Every model fits the host by itself.
            chosen[ON_HOST] = kinds[-1]
        return tuple(sorted(chosen.values(), key=lambda choice: choice.token_s))

    def measured(self, footprint: Footprint) -> Footprint:
        """Return the footprint with other bytes on devices than predicted."""
        shares = (
            replace(share, context_bytes=round(share.context_bytes * self.rng.uniform(0.9, 1.2)))
            for share in footprint.devices
        )
        return replace(footprint, devices=tuple(shares)) if footprint.devices else footprint

    def lacks_memory(self, footprint: Footprint) -> bool:
        """Whether a load fails for memory of a device."""
        return not self.is_fair and bool(footprint.devices) and self.rng.random() < 0.12

    def outgrown(self, model: str, footprint: Footprint) -> Footprint | None:
        """Return what a load is found to take before it begins, if that is more; once for each placement of a model."""
        place = model, footprint.placement
        if not footprint.devices or place in self.planned:
            return None
        self.planned.add(place)
        if self.plans.random() < 0.7:
            return None
        first, *others = footprint.devices
        more = replace(first, context_bytes=first.context_bytes + self.plans.randint(1, 40))
        return replace(footprint, devices=(more, *others))

    def changed(self, budgets: Mapping[str, int]) -> dict[str, int]:
        """Return other budgets: one device has more, less, nothing, or is gone."""
        pool, size = self.rng.choice(self.pools), self.rng.choice((None, 0, 40, 100, 200, 500))
        others = {name: known for name, known in budgets.items() if name != pool}
        return others if size is None else others | {pool: size + self.rng.randint(0, 50)}

    def outdated(self, models: Iterable[str]) -> list[str]:
        """Return the models that are to be sized again for other budgets."""
        return [model for model in models if not self.is_fair and self.sizes.random() < 0.3]

    def roomy(self) -> dict[str, int]:
        """Return budgets that hold much, of at least one device."""
        rng = self.rng
        return {pool: rng.randint(200, 400) for pool in rng.sample(self.pools, rng.randint(1, len(self.pools)))}

    def _on_devices(self, whole: Footprint, pools: tuple[str, ...], token_s: float) -> Footprint:
        parts = len(pools)
        shares = [
            DeviceShare(pool, whole.weights_key, whole.weights_bytes // parts, whole.context_bytes // parts)
            for pool in pools
        ]
        if whole.draft_key:
            shares.append(DeviceShare(pools[0], whole.draft_key, whole.draft_bytes, 3))
        placement = Placement(devices=pools)
        return Footprint(whole.weights_key, 2, 3, devices=tuple(shares), placement=placement, token_s=token_s)

    def _in_part(self, whole: Footprint, pool: str, token_s: float) -> Footprint:
        on_device = whole.weights_bytes // 2
        share = DeviceShare(pool, whole.weights_key, on_device, whole.context_bytes // 2)
        return replace(
            whole,
            weights_bytes=whole.weights_bytes - on_device,
            context_bytes=whole.context_bytes - whole.context_bytes // 2,
            devices=(share,),
            placement=Placement(devices=(pool,), gpu_layers=1),
            token_s=token_s,
        )


def loads_are_where_the_model_may_be(oracle: Oracle, effect: StartLoad) -> str | None:
    known = [choice.placement for choice in oracle.choices[effect.model]]
    if effect.placement not in known:
        return f"{effect.model} is loaded in {effect.placement}, and may be in {known}"
    parked = oracle.parked.get(effect.model)
    if parked is not None and parked.footprint.placement != effect.placement:
        return f"the weights of {effect.model} are in {parked.footprint.placement}, and it wakes in {effect.placement}"
    return None


def moves_delay_nobody(oracle: Oracle, effect: StartLoad) -> str | None:
    if effect.model not in oracle.moving or oracle.is_wanted(effect.model):
        return None
    waiting = [name for name in oracle.traits if name != effect.model and oracle.lacks_memory(name)]
    return f"{effect.model} moves, while these wait for memory: {waiting}" if waiting else None


def moves_are_of_unused_models_to_better_places(oracle: Oracle, effect: Free) -> str | None:
    model = effect.model
    if effect.reason != "move":
        return None
    if model in oracle.parked:
        if not oracle.is_wanted(model):
            return f"the weights of {model} go, and nobody waits for it"
        is_short = oracle.short_beside_pinned(model, oracle.parked[model].footprint)
        return None if is_short else f"{model} is parked, fits there, and is put elsewhere"
    waiting = [name for name in oracle.traits if oracle.lacks_memory(name)]
    if waiting or oracle.traits[model].is_pinned or oracle.waiting_or_served(model):
        return f"{model} moves, and is used or pinned, or these wait for memory: {waiting}"
    present = oracle.engines[model].footprint
    faster = [choice for choice in oracle.choices[model] if choice.token_s < present.token_s]
    if all(oracle.short(choice, oracle.used_instead(model, choice)) for choice in faster):
        return f"{model} moves, and has room in no faster placement"
    return None


def moves_come_to_an_end(oracle: Oracle, effect: Free) -> str | None:
    """Models that nobody uses do not move for ever while nothing else happens in the world."""
    if effect.reason != "move" or effect.model in oracle.parked:
        return None
    most = sum(len(choices) for choices in oracle.choices.values())
    return f"{effect.model} moves, the {most + 1}th move of a settled world" if oracle.moves > most else None


def what_goes_for_a_budget_helps_it(oracle: Oracle, effect: Free) -> str | None:
    if effect.reason != "budget":
        return None
    held = oracle.engines.get(effect.model) or oracle.parked[effect.model]
    over = exceeded(oracle.used(), oracle.budgets)
    if oracle.waiting_or_served(effect.model) or not taken([held.footprint]).keys() & set(over):
        return f"{effect.model} is freed for the budgets of {over}, and is used or takes nothing there"
    return None


def unused_models_go_where_a_budget_is_exceeded(oracle: Oracle, moment: Moment) -> str | None:
    if oracle.is_closing:
        return None
    engines = {name: engine for name, engine in oracle.engines.items() if not engine.is_freeing}
    parked = {name: weights for name, weights in oracle.parked.items() if not weights.is_freeing}
    staying = taken((e.footprint for e in engines.values()), (w.footprint for w in parked.values()))
    over = set(exceeded(staying, oracle.budgets))
    for name, held in sorted({**engines, **parked}.items()):
        is_loading = name in engines and engines[name].loaded_at is None
        is_used = oracle.waiting_or_served(name) or oracle.is_wanted(name) or oracle.asked_modes(name)
        if is_loading or is_used or oracle.traits[name].is_pinned:
            continue
        if pools := {pool for pool in over if taken([held.footprint]).get(pool)}:
            return f"{name} is unused, and {pools} have no room for it"
    return None


def a_load_falls_back_once(oracle: Oracle, moment: Moment) -> str | None:
    event = moment.event
    if not isinstance(event, EngineLoadFailed) or event.model not in moment.after.models or oracle.is_closing:
        return None
    if moment.before.models[event.model].load_state not in (LoadState.LOADING, LoadState.SIZING):
        return None
    model = moment.after.models[event.model]
    has_failed = model.load_state is LoadState.FAILED and model.retry_at > oracle.now
    if event.model in oracle.failed:
        waiting = [r for r, q in oracle.requests.items() if q.model == event.model and q.phase is not Phase.LEASED]
        is_right = not waiting and model.load_state is not LoadState.LOADING
    else:
        is_right = not has_failed
    return None if is_right else f"{event.model} failed for {event.reason}, and is {model.load_state.value}"


def the_machine_counts_what_is_used_of_devices(oracle: Oracle, moment: Moment) -> str | None:
    if oracle.is_closing:
        return None
    counted = {pool: size for pool, size in moment.after.used.items() if size}
    used = {pool: size for pool, size in moment.used.items() if size}
    return None if used == counted else f"{used} are used, and the machine counts {counted}"


OF_POOLS: dict[type, tuple[Callable[..., str | None], ...]] = {
    StartLoad: (loads_are_where_the_model_may_be, moves_delay_nobody),
    Free: (
        moves_are_of_unused_models_to_better_places,
        moves_come_to_an_end,
        what_goes_for_a_budget_helps_it,
    ),
}

OF_POOL_STEPS: tuple[Callable[[Oracle, Moment], str | None], ...] = (
    unused_models_go_where_a_budget_is_exceeded,
    a_load_falls_back_once,
    the_machine_counts_what_is_used_of_devices,
)
