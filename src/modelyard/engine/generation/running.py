"""All that one engine holds of a sequence."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.engine.guidance import Constraint
from modelyard.engine.kv.sequence import Sequence
from modelyard.engine.messages import Reading, SequenceId, Submit
from modelyard.engine.output.output import Answer
from modelyard.engine.output.sampler import ConstrainedSampler, Sampler


@dataclass(slots=True, eq=False)
class RunningSequence:
    """A sequence that an engine computes, or that left it and did not leave its process.

    Attributes:
        request: as it came.
        reading: how its text is to be read; None: it is just text.
        tokens: the prompt and the answer so far.
        output: the text side of the answer.
        sampler: with the state of its random numbers and penalties.
        told: how many of the tokens were published.
    """

    request: Submit
    reading: Reading | None
    tokens: Sequence
    output: Answer
    sampler: Sampler
    told: int = 0

    @property
    def id(self) -> SequenceId:
        """Its number."""
        return self.request.sequence

    @property
    def constraint(self) -> Constraint | None:
        """The grammar that its answer follows, and where in it the answer is."""
        return self.sampler.constraint if isinstance(self.sampler, ConstrainedSampler) else None
