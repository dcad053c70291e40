"""The admitted sequences of an engine, from their admission to their last event."""

from __future__ import annotations

from modelyard.engine.generation.outbox import Outbox
from modelyard.engine.generation.running import RunningSequence
from modelyard.engine.guidance import Constraint
from modelyard.engine.kv.sequence import Sequence as TokenSequence
from modelyard.engine.scheduling.scheduler import Scheduler
from modelyard.engine.speculative.draft_model import DraftModel
from modelyard.errors import ModelyardError
from modelyard.protocol.events import Event, Failed, Suspended
from modelyard.protocol.kv_snapshot import KeptPrompt
from modelyard.protocol.values import SequenceId


class ActiveSequences:
    """The sequences that an engine computes, or that wait for a slot. It belongs to the engine's thread.

    Args:
        identity: names weights and settings: a state that leaves can be restored where it is equal.
        scheduler: computes which of them are in a step.
        drafter: the draft model; None: there is none.
        outbox: takes their last events.

    Attributes:
        by_id: the sequences.
        constraints: the grammars of those that have one.
    """

    def __init__(self, identity: str, scheduler: Scheduler, drafter: DraftModel | None, outbox: Outbox) -> None:
        self._identity, self._scheduler, self._drafter, self._outbox = identity, scheduler, drafter, outbox
        self.by_id: dict[SequenceId, RunningSequence] = {}
        self.constraints: dict[SequenceId, Constraint] = {}

    def add(self, running: RunningSequence, *, alone: bool) -> None:
        """Add a sequence, which the scheduler then starts; ``alone``: with no other in its steps."""
        self.by_id[running.id] = running
        if (constraint := running.constraint) is not None:
            self.constraints[running.id] = constraint
        self._scheduler.add(running.tokens, alone=alone)

    def remaining(self, sequence: TokenSequence) -> int:
        """Return how many tokens the answer of a sequence may still have."""
        return max(0, self.by_id[sequence.id].output.max_tokens - sequence.answer_length)

    def end(self, sequence: SequenceId, last: Event) -> None:
        """End a sequence with its last event."""
        self._scheduler.remove(sequence)
        self.by_id.pop(sequence).sampler.free()
        self.constraints.pop(sequence, None)
        if self._drafter is not None:
            self._drafter.release(sequence)
        self._outbox.add(last)

    def fail(self, sequence: TokenSequence, error: ModelyardError) -> None:
        """End a sequence with an error."""
        self.end(sequence.id, Failed(sequence.id, error, sequence.usage))

    def suspend(self, sequence: TokenSequence, kept: KeptPrompt | None) -> None:
        """Remove a sequence that the scheduler has drained; its state owns its sampler from now on.

        Args:
            sequence: the sequence.
            kept: its KV state; None: it is computed again.
        """
        self.constraints.pop(sequence.id, None)
        state = self.by_id.pop(sequence.id).suspended(self._identity, kept)
        self._outbox.add(Suspended(sequence.id, state))

    def suspend_all_by_failure(self) -> None:
        """Publish the states of all sequences after a failure: each can be resumed elsewhere from its published tokens.

        The sequences stay here until ``free``.
        """
        for running in self.by_id.values():
            self._outbox.add(Suspended(running.id, running.suspended_by_failure(self._identity)))

    def free(self) -> None:
        """Free the samplers of all sequences."""
        for running in self.by_id.values():
            running.sampler.free()
        self.by_id.clear()
