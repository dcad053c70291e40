"""Runs the model on the tokens of a step, or on an image, while the engine has its share of the device.

Hot path: ``compute`` runs once for each step.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from modelyard.engine.guidance import Constraint, GrammarCompiler, prepare
from modelyard.engine.kv.placeholders import ImageSpan
from modelyard.engine.kv.sequence import Sequence as TokenSequence
from modelyard.engine.llama import Batch, Context, OpenMpTeam
from modelyard.engine.loading.adapters import LoadedAdapters
from modelyard.engine.loading.vision import Vision
from modelyard.engine.scheduling.chunk import ScheduledChunk
from modelyard.engine.scheduling.engine_table import EngineRecord
from modelyard.engine.scheduling.fair_share import Device, DeviceShare
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.engine.scheduling.thread_tuner import ThreadTuner
from modelyard.engine.speculative.draft_model import DraftModel
from modelyard.engine.speculative.policy import MAX_DRAFTED
from modelyard.protocol.values import SequenceId


class StepComputer:
    """Computes the steps of one engine, and records each for the other engines and for the watch of steps.

    Args:
        context: of the model.
        batch: for the tokens of a step.
        cost: learns how long steps take.
        vision: encodes images; None for a model that takes none.
        adapters: that sequences use.
        grammars: has the thread that computes which tokens come next, beside the model.
        device, share: what the engines share, and the share of this one.
        record: shows what is computed.

    Attributes:
        team: the threads that compute.
    """

    def __init__(
        self,
        context: Context,
        batch: Batch,
        cost: StepCost,
        vision: Vision | None,
        adapters: LoadedAdapters,
        grammars: GrammarCompiler,
        device: Device,
        share: DeviceShare,
        record: EngineRecord,
    ) -> None:
        self._context, self._batch, self._cost, self._vision = context, batch, cost, vision
        self._adapters = adapters
        self._grammars, self._device, self._share, self._record = grammars, device, share, record
        self._tuner = ThreadTuner()
        self.team = OpenMpTeam()

    def compute(self, chunks: Sequence[ScheduledChunk], constraints: Mapping[SequenceId, Constraint]) -> int:
        """Run the model on the tokens of a step; return what ``Context.decode`` returns.

        Meanwhile the ``constraints`` compute which tokens may come next. All sequences of the step have the same
        adapters.
        """
        length = 0
        for chunk in chunks:
            assert chunk.sequence.slot is not None
            position = chunk.sequence.position_at(chunk.position)
            length = self._batch.fill(length, chunk.tokens, position, chunk.sequence.slot.index, outputs=chunk.outputs)
        if constraints:
            ids = [chunk.sequence.id for chunk in chunks if chunk.outputs]
            prepare([constraints[each] for each in ids if each in constraints], self._grammars.masks)
        with self._device.step(self._share):
            self._use_threads(self._context, self._tuner.threads(self._device.threads(self._share), length))
            self._record.begin_step([chunk.sequence.id for chunk in chunks], length)
            are_others = self._use_adapters(chunks[0])
            began = time.perf_counter()
            outcome = self._context.decode(self._batch, length)
            took_s = time.perf_counter() - began
        # With other adapters than before, a step takes longer once.
        if outcome == Context.DECODED and not are_others:
            self._cost.observe(length, took_s)
            self._tuner.observe(took_s)
        return outcome

    def compute_image(self, chunk: ScheduledChunk, image: ImageSpan) -> int:
        """Run the model on an image; return what ``Context.decode`` returns.

        Raises:
            ModelyardError, RuntimeError: the image cannot be encoded.
        """
        sequence = chunk.sequence
        assert self._vision is not None
        assert sequence.slot is not None
        with self._device.step(self._share):
            self._use_threads(self._context, self._device.threads(self._share))
            self._record.begin_step([sequence.id], len(chunk.tokens))
            embeddings = self._vision.embeddings(image)
            self._use_adapters(chunk)
            position = sequence.position_at(chunk.position)
            return self._context.decode_embeddings(embeddings, position, sequence.slot.index)

    def _use_adapters(self, chunk: ScheduledChunk) -> bool:
        """Compute with the adapters of a chunk from now on; whether these are others than before."""
        return self._context.use_adapters(self._adapters.loaded(chunk.sequence.adapters))

    def _use_threads(self, context: Context, threads: int) -> None:
        context.use_threads(threads)
        self.team.use(threads)

    def draft(self, drafter: DraftModel, running: Sequence[TokenSequence]) -> None:
        """Run the draft model for all running sequences."""
        with self._device.step(self._share):
            # A trial of other numbers of threads compares steps of the model alone.
            self._use_threads(drafter.context, self._device.threads(self._share))
            # The draft model first computes what it has not computed yet of the sequences, which may be all of it.
            tokens = sum(len(sequence.tokens) + MAX_DRAFTED for sequence in running)
            self._record.begin_step([sequence.id for sequence in running], tokens)
            drafter.draft(running, self._cost.relative)
            self._record.end_step()
