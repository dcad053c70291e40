"""Draws the next tokens of one sequence from the logits of a step.

Hot path: ``draw_tokens`` runs once for each sequence of a step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from modelyard.engine.generation.running import RunningSequence
from modelyard.engine.guidance import Constraint
from modelyard.engine.llama import Context, Model
from modelyard.engine.output.logprobs import LogprobRecorder, log_of, log_softmax
from modelyard.engine.output.output import SequenceOutput
from modelyard.engine.output.sampler import GreedySampler
from modelyard.protocol.events import Token
from modelyard.protocol.values import SequenceId


class SequenceOutputs(NamedTuple):
    """What a step computed for one sequence.

    Attributes:
        first: index in the batch of the first token with logits.
        logits: [outputs, vocab_size].
        likeliest: the most likely token of each row; None where there is none.
        is_shared: whether the step had other sequences. They move logits as much as draft tokens do, so that nothing is
            gained by computing an uncertain token again.
    """

    first: int
    logits: npt.NDArray[np.float32]
    likeliest: Sequence[int | None]
    is_shared: bool


def draw_tokens(
    model: Model,
    context: Context,
    running: RunningSequence,
    constraint: Constraint | None,
    drafted: Sequence[int],
    outputs: SequenceOutputs,
) -> tuple[Token, int]:
    """Sample the next token of a sequence, and one more for each draft token that is accepted.

    Args:
        model, context: what computed the logits.
        running: the sequence, which takes over the tokens.
        constraint: its grammar; None where it has none.
        drafted: the draft tokens that were computed behind its last token.
        outputs: what the step computed for it.

    Returns:
        The event of the tokens, and how many draft tokens were accepted.

    Raises:
        ConstraintBroken: the grammar allows no token.
    """
    sequence, sampler, output = running.tokens, running.sampler, running.output
    index, logits, likeliest, is_shared = outputs
    recorder, first = output.recorder, len(sequence.tokens)
    text, accepted = "", 0
    takes_likeliest = isinstance(sampler, GreedySampler) and sampler.adjustments.are_none
    watches_end = constraint is not None or running.calls is not None or running.request.max_predict_s is not None
    while True:
        row = logits[accepted]
        scores = None if recorder is None or running.request.sampled_logprobs else log_softmax(row)
        if recorder is not None and scores is None:
            token, probabilities = sampler.draw(row)
            scores = log_of(probabilities())
            sampler.accept(token)
        elif takes_likeliest and (best := likeliest[accepted]) is not None:
            token = best
        else:
            token = sampler.sample(context, index + accepted, row)
        if drafted and not is_shared and not sampler.is_certain(row, token):
            # The token is computed again in a step without drafts, which therefore never change an answer.
            sequence.is_alone = True
            break
        sequence.tokens.append(token)
        piece = model.piece_of(token, output.visible_specials)
        new_text = output.push(token, piece)
        if running.reasoning is not None:
            running.reasoning.push(piece)
        if recorder is not None and scores is not None and token not in output.end_tokens:
            recorder.add(token, len(piece), scores)
        text += new_text
        if watches_end:
            text += _end_in_time(running, constraint, new_text)
        if output.finish_reason or accepted == len(drafted) or token != drafted[accepted]:
            break
        accepted += 1
    ids = tuple(sequence.tokens[first:])
    if recorder is None:
        return Token(sequence.id, text, (), ids), accepted
    return _token_with_logprobs(sequence.id, text, ids, output, recorder), accepted


def _end_in_time(running: RunningSequence, constraint: Constraint | None, new_text: str) -> str:
    """End an answer that is whole, by its grammar or with its only call, or whose time is over.

    Return the text that was held back.
    """
    output, text = running.output, ""
    if constraint is not None and output.stopped_by is None:
        if constraint.is_complete:
            # Nothing can follow: this saves the step that would sample an end token, and needs no such token.
            text = output.complete()
        if constraint.is_cut and output.finish_reason:
            output.finish_reason = "length"
    if output.finish_reason is None and running.completes_call(new_text):
        text += output.complete()
    if output.finish_reason is None and running.is_overdue(time.monotonic()):
        text += output.complete("length")
    return text


def _token_with_logprobs(
    sequence: SequenceId, text: str, ids: tuple[int, ...], output: SequenceOutput, recorder: LogprobRecorder
) -> Token:
    """The event of newly sampled tokens, with the log-probabilities whose text is now certain."""
    if output.finish_reason:
        return Token(sequence, text, recorder.release_last(text, is_cut=output.stopped_by is not None), ids)
    return Token(sequence, text, recorder.release(text), ids, recorder.pending)
