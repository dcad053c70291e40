"""One step of an engine: schedule, decode, sample.

Hot path: ``StepRunner.run`` runs once for each step of the engine, and ``_sample`` once for each of its sequences. The
events of a step are published right before the next one is computed, while their readers have time.
"""

from __future__ import annotations

import logging

from modelyard.engine.generation import prompt_reports
from modelyard.engine.generation.active import ActiveSequences
from modelyard.engine.generation.computer import StepComputer
from modelyard.engine.generation.finite import NOT_FINITE, peaks
from modelyard.engine.generation.outbox import Outbox
from modelyard.engine.generation.sampling import SequenceOutputs, draw_tokens
from modelyard.engine.guidance import ConstraintBroken
from modelyard.engine.guidance.trial import reason_of
from modelyard.engine.kv.offload import KvOffload
from modelyard.engine.kv.placeholders import ImageSpan
from modelyard.engine.llama import Context
from modelyard.engine.loading.load import LoadedModel
from modelyard.engine.scheduling.chunk import ScheduledChunk
from modelyard.engine.scheduling.engine_table import EngineRecord
from modelyard.engine.scheduling.scheduler import Scheduler
from modelyard.errors import EngineError, GrammarBroken, ModelyardError
from modelyard.protocol.events import Finished

logger = logging.getLogger(__name__)


class StepRunner:
    """Runs the steps of one engine. It belongs to the engine's thread.

    Args:
        name: id of the model, for messages.
        loaded: the loaded model.
        scheduler: chooses the tokens of each step.
        offload: carries out what the accounting of cells asks for.
        computer: runs the model.
        active: the sequences.
        outbox: takes the events of a step.
        record: shows what the engine does.
    """

    def __init__(
        self,
        name: str,
        loaded: LoadedModel,
        scheduler: Scheduler,
        offload: KvOffload,
        computer: StepComputer,
        active: ActiveSequences,
        outbox: Outbox,
        record: EngineRecord,
    ) -> None:
        self._name = name
        self._model, self._context, self._drafter = loaded.model, loaded.context, loaded.drafter
        self._scheduler, self._offload, self._computer = scheduler, offload, computer
        self._active, self._outbox, self._record = active, outbox, record

    def run(self) -> None:
        """Compute one step, and sample the next tokens of its sequences."""
        chunks = self._decode()
        rows = sum(chunk.outputs for chunk in chunks)
        if not rows:
            return
        logits = self._context.logits(rows)
        likeliest = peaks(logits)
        index = row = 0
        for chunk in chunks:
            index += len(chunk.tokens)
            if chunk.outputs:
                end = row + chunk.outputs
                first = index - chunk.outputs
                self._sample(chunk, SequenceOutputs(first, logits[row:end], likeliest[row:end], len(chunks) > 1))
                row = end

    def _sample(self, chunk: ScheduledChunk, outputs: SequenceOutputs) -> None:
        """Sample the next tokens of a sequence, and report them; end it where it is over."""
        sequence, drafted = chunk.sequence, chunk.tokens[len(chunk.tokens) - chunk.outputs + 1 :]
        running = self._active.by_id[sequence.id]
        output, constraints = running.output, self._active.constraints
        if None in outputs.likeliest:
            self._active.fail(sequence, EngineError(self._name, NOT_FINITE))
            return
        if sequence.scores_prompt:
            scored = prompt_reports.scores(running, chunk, outputs.logits, self._model)
            if scored is None:
                return
            self._outbox.extend(scored)
        if output.max_tokens == 0:
            self._active.end(sequence.id, Finished(sequence.id, "length", sequence.usage))
            return
        try:
            constraint = constraints.get(sequence.id) if constraints else None
            drawn, accepted = draw_tokens(self._model, self._context, running, constraint, drafted, outputs)
        except ConstraintBroken as broken:
            self._active.fail(sequence, GrammarBroken(reason_of(str(broken))))
            return
        if drafted:
            self._scheduler.drafts.settle(chunk, accepted)
        if self._scheduler.alone is sequence:
            self._scheduler.alone = None
        running.published = len(sequence.tokens)
        self._outbox.add(drawn)
        if output.finish_reason:
            finished = Finished(sequence.id, output.finish_reason, running.usage, output.stopped_by)
            self._active.end(sequence.id, finished)

    def _decode(self) -> list[ScheduledChunk]:
        """Compute the next step; return its chunks, or [] where it did not fit and others must give way first."""
        # Rejected draft tokens of the last step must not be saved.
        self._offload.carry_out()
        if self._scheduler.waiting:
            # They may reuse prefixes, as far as those can be cut back.
            self._offload.find_shortest()
        is_moving = self._offload.is_due(self._scheduler.admissible)
        if self._drafter is not None or is_moving:
            # Publish pending events before slow work.
            self._outbox.flush()
        if is_moving:
            self._record.doing = "saving"
            self._offload.prepare_step(self._scheduler.admissible)
            self._record.doing = "idle"
        if self._drafter is not None and self._scheduler.only_decodes and self._scheduler.alone is None:
            self._computer.draft(self._drafter, self._scheduler.begin_turn())
        chunks = self._scheduler.schedule()
        if self._scheduler.started:
            for each in self._scheduler.started:
                self._outbox.extend(prompt_reports.started(self._active.by_id[each.id]))
            self._scheduler.started.clear()
        self._offload.carry_out()
        if not chunks:
            return chunks
        self._outbox.flush()
        if chunks[0].image is not None:
            outcome = self._decode_image(chunks[0], chunks[0].image)
            if outcome is None:
                return []
        else:
            outcome = self._computer.compute(chunks, self._active.constraints)
        if outcome == Context.DECODED:
            if self._scheduler.save_checkpoints(chunks):
                self._offload.carry_out()
            self._outbox.extend(prompt_reports.progress(chunks, self._active.by_id))
            return chunks
        if outcome != Context.CACHE_FULL:
            raise RuntimeError(f"llama_decode returned {outcome}: {self._context.failure()}")
        if not self._scheduler.undo(chunks):
            self._active.fail(
                self._scheduler.running[0], EngineError(self._name, "its KV cache has no room for this one request")
            )
        self._offload.carry_out()
        return []

    def _decode_image(self, chunk: ScheduledChunk, image: ImageSpan) -> int | None:
        """Run the model on an image; return what ``Context.decode`` returns, or None where the request failed."""
        sequence = chunk.sequence
        assert sequence.slot is not None
        try:
            return self._computer.compute_image(chunk, image)
        except (ModelyardError, RuntimeError) as failure:
            # The failure concerns this image alone: other sequences are unaffected.
            logger.warning("%s: %s", self._name, failure)
            self._scheduler.cache.trim(sequence.slot, chunk.position)
            self._active.fail(
                sequence, failure if isinstance(failure, ModelyardError) else EngineError(self._name, str(failure))
            )
            self._offload.carry_out()
            return None
