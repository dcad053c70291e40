"""What a trial is told: which engine to run, and what its process may take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from modelyard.engine.settings import EngineSettings
from modelyard.protocol.prompts import Sampling
from modelyard.system.bounded.processor_time import limit_processor_time

GIB: Final = 1 << 30

# Up to this size a trial computes with the same copies of the weights as the engine will, and with longer steps. The
# copies of larger ones take as long to make as the load itself: they are tried on the weights as the file has them.
EXACT_BYTES: Final = 2 * GIB
STEP_TOKENS: Final = 64
STEP_TOKENS_OF_LARGE: Final = 8
CELLS: Final = 512
TRIAL_SEQS: Final = 4

# Processor time of a trial that does not hang, ten times what it takes: 3 s for the start and the vocabulary, and 7 s a
# GiB for the weights, which are read once and computed on some fifteen times (docs/performance.md).
CPU_S: Final = 20.0
CPU_S_OF_GIB: Final = 120.0
# A machine may be busy, or its disk slow: that is waited for, four times as long.
PATIENCE: Final = 4.0

# Memory beside what the engine itself takes: the interpreter, llama.cpp's library.
PROCESS_BYTES: Final = 96 << 20


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """What the process of a trial may take before it is ended.

    Attributes:
        cpu_s: seconds of all its threads together.
        wall_s: seconds by the clock.
        data_bytes: of memory that it allocates; mapped files are not counted.
    """

    cpu_s: float
    wall_s: float
    data_bytes: int

    def apply(self) -> None:
        """Hold this process to the time of processors and the memory, where the system can (POSIX)."""
        limit_processor_time(self.cpu_s)
        try:
            import resource
        except ImportError:
            return
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard == resource.RLIM_INFINITY or hard > self.data_bytes:
            resource.setrlimit(resource.RLIMIT_DATA, (self.data_bytes, hard))


@dataclass(frozen=True, slots=True)
class TrialTask:
    """One trial.

    Attributes:
        settings: of the engine that is tried.
        vocabulary_size: its tokens have ids below it.
        repacks: whether llama.cpp makes the copies of the weights that its kernels like better.
        limits: of the process.
    """

    settings: EngineSettings
    vocabulary_size: int
    repacks: bool
    limits: TrialLimits


def trial_of(
    settings: EngineSettings,
    *,
    file_bytes: int,
    trained_context: int | None,
    vocabulary_size: int,
    cores: int,
) -> TrialTask:
    """The trial of a model that will be served with ``settings``: the same engine, with less of everything.

    Args:
        settings: as the model is to be served.
        file_bytes: of all its files.
        trained_context: tokens that the model was trained for, as far as its header says.
        vocabulary_size: how many tokens it knows.
        cores: that the trial computes on.
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
            # An accelerator has no room for a model twice. Its kernels are not tried.
            offload=False,
            device_layers=None,
            # Of no matter to what llama.cpp computes.
            sampling=Sampling(),
            kv_keep="off",
            kv_dir=None,
            draft=(),
            projector=None,
            files=(),
        ),
        vocabulary_size=vocabulary_size,
        repacks=is_small,
        limits=TrialLimits(seconds, PATIENCE * max(seconds / max(1, cores), CPU_S), 2 * file_bytes + 2 * GIB),
    )
