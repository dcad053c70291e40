"""The devices of the machine as a configuration uses them, for commands that load no model."""

from __future__ import annotations

from modelyard.config import Config
from modelyard.engine.hosts.device_list import list_devices, may_have_accelerators
from modelyard.engine.placing import LlamaDevice, accelerators
from modelyard.errors import ConfigError, ConfigProblem, UnusableModel
from modelyard.yard.memory.device_budgets import device_budgets, resolved_budgets
from modelyard.yard.runtime.model_checks import misplacement, resolve_among
from modelyard.yard.runtime.model_spec import ModelSpec
from modelyard.yard.runtime.placements import may_use_devices, needs_devices, placement_of


def list_budgeted_devices(config: Config) -> tuple[tuple[LlamaDevice, ...], dict[str, int]]:
    """Return the devices of the machine, and what models may take of each pool; neither where no model may use any.

    They are listed in a child process, only where llama.cpp may see any.

    Raises:
        ConfigError: a budget is of a device that does not exist, with one problem for each.
        UnusableModel: llama.cpp cannot list them.
    """
    if not any(may_use_devices(placement_of(config, model)) for model in config.models if not model.is_remote):
        return (), {}
    found = tuple(list_devices()) if may_have_accelerators() else ()
    configured = resolved_budgets(config.memory.devices, found)
    if configured.problems:
        raise ConfigError("", list(configured.problems))
    return found, device_budgets(found, configured.by_pool, {})


def device_problems(config: Config) -> tuple[list[ConfigProblem], list[str]]:
    """Return what is wrong with the devices that a configuration names, and warnings about them.

    Devices are listed only where it names any: in a child process, if llama.cpp may see any.
    """
    specs = {number: ModelSpec(config, model) for number, model in enumerate(config.models) if not model.is_remote}
    needing = any(needs_devices(placement_of(config, spec.model)) for spec in specs.values())
    if not config.memory.devices and not needing:
        return [], []
    try:
        found = tuple(list_devices()) if may_have_accelerators() else ()
    except UnusableModel as unusable:
        return [], [str(unusable)]
    problems = [
        ConfigProblem(problem, location=("models", number, "device"))
        for number, spec in specs.items()
        if (problem := misplacement(spec, lambda placement: resolve_among(placement, found)))
    ]
    if not accelerators(found):
        unused = "The budgets in [memory.devices] have no effect: there are no devices here."
        return problems, [unused] if config.memory.devices else []
    faults = resolved_budgets(config.memory.devices, found).problems
    return [*problems, *(ConfigProblem(fault, location=("memory", "devices")) for fault in faults)], []
