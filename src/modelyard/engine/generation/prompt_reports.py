"""What an engine reports of a prompt while it computes it: how much is computed, and its tokens' log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from modelyard.engine.generation.running import RunningSequence
from modelyard.engine.llama import Model
from modelyard.engine.scheduling.chunk import ScheduledChunk
from modelyard.protocol.events import Event, PromptProgress, PromptScored, Started, Token
from modelyard.protocol.prompts import Text
from modelyard.protocol.values import SequenceId


def started(running: RunningSequence) -> Iterator[Event]:
    """Yield the events of a prompt that begins to be computed."""
    cached = running.tokens.cached_tokens or 0
    yield Started(running.id, cached)
    if running.request.reports_progress:
        # The first report is of the prefix that need not be computed, as llama.cpp has it.
        yield PromptProgress(running.id, cached)


def progress(
    chunks: Sequence[ScheduledChunk], running: Mapping[SequenceId, RunningSequence]
) -> Iterator[PromptProgress]:
    """Yield how much is computed, with a step's chunks, of the prompts that are to report it."""
    for chunk in chunks:
        sequence, end = chunk.sequence, chunk.position + len(chunk.tokens)
        if end <= sequence.prompt_length and running[sequence.id].request.reports_progress:
            yield PromptProgress(sequence.id, end)


def scores(
    running: RunningSequence, chunk: ScheduledChunk, logits: npt.NDArray[np.float32], model: Model
) -> list[Event] | None:
    """Record log-probabilities of a prompt; return the events that have all of them, None while some are to come."""
    sequence, recorder, request = running.tokens, running.prompt_recorder, running.request
    assert recorder is not None
    recorder.score(sequence.tokens[: sequence.prompt_length], chunk.position, logits)
    if chunk.position + len(chunk.tokens) < sequence.prompt_length:
        return None
    sequence.scores_prompt = False
    running.prompt_recorder = None
    events: list[Event] = []
    if request.prompt_logprobs is not None:
        events.append(PromptScored(sequence.id, recorder.prompt_with(request.prompt_logprobs)))
    if request.echoes:
        scored = () if request.logprobs is None else recorder.prompt_with(request.logprobs)
        # The echoed text does not have the begin token.
        skipped = 1 if isinstance(request.prompt, Text) and not model.piece(sequence.tokens[0]) else 0
        events.append(Token(sequence.id, running.echo, scored[skipped:]))
    return events
