"""The engine's thread: it loads, serves and frees one model; its last event has the reason for its end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol

from modelyard.engine.chat.template_processes import RendersTemplates
from modelyard.engine.generation.loop import GenerationLoop
from modelyard.engine.loading.load import LoadedModel, load
from modelyard.engine.loading.weights import WeightsPool
from modelyard.engine.messages import LoopMessage
from modelyard.engine.pooling.load import LoadedPoolingModel, load_pooling_model
from modelyard.engine.pooling.loop import PoolingLoop
from modelyard.engine.scheduling.engine_table import EngineRecord
from modelyard.engine.scheduling.fair_share import Device
from modelyard.engine.settings import EngineSettings
from modelyard.errors import OutOfDeviceMemory, UnusableModel
from modelyard.protocol.events import (
    Cancelled,
    Died,
    Dying,
    Event,
    Loaded,
    LoadFailed,
    LoadProgress,
    Publish,
    Stopped,
    Suspended,
)
from modelyard.protocol.kv_snapshot import KeptPrefixes
from modelyard.protocol.messages import Restore, Resume
from modelyard.protocol.requests import Stop
from modelyard.protocol.values import SequenceId
from modelyard.system.malloc import trim_heap

logger = logging.getLogger(__name__)

# Part of the weights after which a load reports its progress again.
PROGRESS_STEP = 0.01


class EngineLoop(Protocol):
    """Serves a loaded model on the engine's thread: ``GenerationLoop``, or ``PoolingLoop`` for vectors and scores."""

    def serve(self) -> Stop:
        """Serve until a Stop arrives, and return it."""

    def shutdown(self, stop: Stop) -> KeptPrefixes | None:
        """End or suspend all requests as ``stop`` says; return the prompts that are kept."""

    def fail(self) -> None:
        """Give all requests back after a failure."""

    def close(self) -> None:
        """Free what the loop has made beside the loaded model: samplers, threads and processes."""


def run_engine(
    settings: EngineSettings,
    pool: WeightsPool,
    device: Device,
    templates: RendersTemplates,
    inbox: SimpleQueue[LoopMessage],
    publish: Publish,
    is_stopping: Callable[[], bool],
) -> None:
    """Load a model, serve it until a Stop arrives, and free it. The last event has the reason for its end.

    Args:
        settings: what to load and how to serve it.
        pool: weights that engines on the same files share.
        device: the device that engines share.
        templates: renders the chat template.
        inbox: messages from the rest of the process.
        publish: takes the events of a step; called on this thread.
        is_stopping: whether a Stop was sent; called while loading, when the inbox is not read.
    """

    reported = -1.0

    def report(fraction: float) -> bool:
        nonlocal reported
        # llama.cpp reports every tensor.
        if fraction >= reported + PROGRESS_STEP or (fraction >= 1 > reported):
            reported = fraction
            publish([LoadProgress(fraction)])
        return not is_stopping()

    last: Event = Stopped()
    loaded: LoadedModel | LoadedPoolingModel | None = None
    loop: EngineLoop | None = None
    record: EngineRecord | None = None
    try:
        record = device.table.claim(settings.name)
        record.doing = "loading"
        loaded = _load(settings, pool, templates, report, record.name_files)
        if isinstance(loaded, LoadedPoolingModel):
            loop = PoolingLoop(settings, loaded, device, record, inbox, publish)
        else:
            loop = GenerationLoop(settings, loaded, device, record, inbox, publish)
        record.doing = "idle"
        publish([Loaded(loaded.profile)])
        stop = loop.serve()
        last = Stopped(loop.shutdown(stop), loaded.park() if stop.park else None)
    except UnusableModel as refused:
        failed = LoadFailed(str(refused), isinstance(refused, OutOfDeviceMemory))
        last = _return_undelivered(inbox, publish) if is_stopping() else failed
    except Exception as failure:
        # Any error ends this engine, and only this engine.
        logger.exception("The engine of %s failed", settings.name)
        reason = f"{type(failure).__name__}: {failure}"
        last = LoadFailed(reason) if loop is None else Died(reason)
    try:
        if loop is not None:
            if isinstance(last, Died):
                # Publish Dying before the sequences end: a client that then checks must not find a model that serves.
                active = () if record is None else record.computing
                publish([Dying(last.reason, tuple(map(SequenceId, active)))])
                loop.fail()
            loop.close()
        if loaded is not None:
            loaded.free()
        loop = loaded = None
        # Also after a failed load: llama.cpp had read the whole vocabulary by then.
        trim_heap()
    finally:
        if record is not None:
            device.table.release(record)
        # Without a last event the model's requests would wait for ever.
        publish([last])


def _load(
    settings: EngineSettings,
    pool: WeightsPool,
    templates: RendersTemplates,
    on_progress: Callable[[float], bool],
    on_files: Callable[[str], object],
) -> LoadedModel | LoadedPoolingModel:
    if settings.kind == "text":
        return load(settings, pool, on_progress, templates, on_files)
    return load_pooling_model(settings, pool, on_progress, on_files)


def _return_undelivered(inbox: SimpleQueue[LoopMessage], publish: Publish) -> Stopped:
    """Return the requests and prompts that were sent to an engine that was stopped while it loaded."""
    messages: list[LoopMessage] = []
    with suppress(Empty):
        while True:
            messages.append(inbox.get_nowait())
    stop = next((message for message in messages if isinstance(message, Stop)), Stop())
    room = stop.keep_bytes
    events: list[Event] = []
    kept: KeptPrefixes | None = None
    for message in messages:
        match message:
            case Resume(state) if stop.suspend:
                state = state if state.size_bytes <= room else state.without_kv()
                room -= state.size_bytes
                events.append(Suspended(state.sequence, state))
            case Resume(state):
                events.append(Cancelled(state.sequence))
            case Restore(prefixes):
                kept = prefixes
    if events:
        publish(events)
    return Stopped(kept if kept is not None and kept.size_bytes <= room else None)
