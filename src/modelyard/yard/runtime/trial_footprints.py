"""What the trial of a model takes of the host's memory, before its engine does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from modelyard.engine.settings import EngineSettings
from modelyard.protocol.placement import Placement
from modelyard.yard.memory.footprint import Choices
from modelyard.yard.runtime.model_spec import SpecFiles, trial_bytes, trial_tasks
from modelyard.yard.runtime.trials import Trials, tried_placement


async def with_trials(
    choices: Choices,
    files: SpecFiles,
    settings_in: Callable[[Placement], EngineSettings],
    trials: Trials,
    budget_bytes: int,
) -> Choices:
    """Return the footprints with what trials take, where a model was not tried before.

    Args:
        choices: of a model.
        files: its files.
        settings_in: returns the settings of its engine in a placement.
        trials: that precede the engine.
        budget_bytes: of the host. It bounds what counts for a trial, so that a model that fits only just is still
            tried, with nothing else loaded.

    Raises:
        UnusableModel: a file cannot be read.
    """
    bytes_of: dict[tuple[Path, ...], int] = {}
    known: dict[tuple[tuple[Path, ...], Placement], bool] = {}
    tried = []
    for choice in choices:
        footprint = choice
        for task, model in trial_tasks(files, settings_in(choice.placement)):
            # Most placements have the trial of another one, and looking for a trial reads parts of the files.
            key = model.paths, tried_placement(task.settings.placement)
            if key not in known:
                known[key] = await trials.is_known(task)
            if known[key]:
                continue
            if model.paths not in bytes_of:
                bytes_of[model.paths] = await asyncio.to_thread(trial_bytes, task, model)
            free_bytes = budget_bytes - (footprint.host_bytes - footprint.context_bytes)
            footprint = footprint.with_context(min(bytes_of[model.paths], free_bytes))
        tried.append(footprint)
    return tuple(tried)
