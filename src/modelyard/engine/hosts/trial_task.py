"""The task of a trial: the engine to run, and the limits of its process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from modelyard.engine.settings import EngineSettings
from modelyard.protocol.prompts import Sampling
from modelyard.system.bounded.processor_time import limit_processor_time

GIB: Final = 1 << 30

# Up to this size a trial computes with the same repacked weights as the engine will, and with longer steps. Repacking
# larger weights takes as long as loading them, so these are tried as the file has them.
EXACT_BYTES: Final = 2 * GIB
STEP_TOKENS: Final = 64
STEP_TOKENS_OF_LARGE: Final = 8
CELLS: Final = 512
TRIAL_SEQS: Final = 4

# Limits of a trial's processor time, about ten times the usual: 3 s for the start and the vocabulary, and 7 s a GiB for
# the weights, which are read once and computed on some fifteen times (docs/performance.md).
CPU_S: Final = 20.0
CPU_S_OF_GIB: Final = 120.0
# Limit of the wall-clock time, as a multiple of the processor time: the machine may be busy, or its disk slow.
PATIENCE: Final = 4.0

# Memory beside that of the engine: the interpreter and llama.cpp's library.
PROCESS_BYTES: Final = 96 << 20


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """Limits at which the process of a trial is ended.

    Attributes:
        cpu_s: processor time of all its threads together.
        wall_s: wall-clock time.
        data_bytes: memory that it allocates; mapped files do not count.
    """

    cpu_s: float
    wall_s: float
    data_bytes: int

    def apply(self, *, bounds_memory: bool = True) -> None:
        """Limit the processor time and memory of this process, on POSIX systems.

        Args:
            bounds_memory: whether memory is limited; drivers of devices reserve more than they use.
        """
        limit_processor_time(self.cpu_s)
        try:
            import resource
        except ImportError:
            return
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if not bounds_memory:
            return
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard == resource.RLIM_INFINITY or hard > self.data_bytes:
            resource.setrlimit(resource.RLIMIT_DATA, (self.data_bytes, hard))


@dataclass(frozen=True, slots=True)
class TrialTask:
    """One trial.

    Attributes:
        settings: settings of the engine that is tried.
        vocabulary_size: number of tokens.
        repacks: whether llama.cpp repacks the weights for its kernels.
        limits: limits of the process.
        cores: cores that it computes on; None: those on which it computes fastest.
    """

    settings: EngineSettings
    vocabulary_size: int
    repacks: bool
    limits: TrialLimits
    cores: int | None = None


def trial_of(
    settings: EngineSettings,
    *,
    file_bytes: int,
    trained_context: int | None,
    vocabulary_size: int,
    cores: int,
) -> TrialTask:
    """Return the trial of a model that will be served with ``settings``: the same engine, with smaller limits.

    Args:
        settings: settings with which the model will be served.
        file_bytes: size of all its files.
        trained_context: context length of its training, if its header has it.
        vocabulary_size: number of tokens.
        cores: cores that the trial computes on.
    """
    is_small = file_bytes <= EXACT_BYTES
    step = STEP_TOKENS if is_small else STEP_TOKENS_OF_LARGE
    seconds = CPU_S + CPU_S_OF_GIB * file_bytes / GIB
    return TrialTask(
        replace(
            settings,
            context_length=min(settings.context_length or trained_context or CELLS, CELLS),
            max_seqs=min(settings.max_seqs, TRIAL_SEQS),
            prefix_slots=min(settings.prefix_slots, 1),
            batch_tokens=min(settings.batch_tokens, step),
            # The settings below do not affect what llama.cpp computes.
            sampling=Sampling(),
            kv_keep="off",
            kv_dir=None,
            draft=(),
            projector=None,
            files=(),
            adapters=(),
        ),
        vocabulary_size=vocabulary_size,
        repacks=is_small,
        limits=TrialLimits(seconds, PATIENCE * max(seconds / max(1, cores), CPU_S), 2 * file_bytes + 2 * GIB),
    )
