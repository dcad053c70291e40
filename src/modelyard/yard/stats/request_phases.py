"""The phases of a request: what it waited for and what was computed, each with its begin, its end and a sentence. Pure.

What happens between two steps of its way is read from the request's times, so that recording costs nothing per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from modelyard.system.quantities import count_text
from modelyard.yard.requests.timings import RequestTimings

PhaseKind = Literal["waiting", "loading", "prefill", "decode", "suspended"]

MIN_PHASE_S: Final = 0.001
"""Shorter phases are left out: a request that is granted at once did not wait."""


class Step(NamedTuple):
    """A step on the way of a request, from which a phase begins.

    Attributes:
        began: seconds of ``time.monotonic``.
        is_granted: whether an engine has the request from here on.
        kind: of the phase of a request that no engine has.
        text: why it waits.
        models: ids of other models that it waits for.
    """

    began: float
    is_granted: bool = False
    kind: PhaseKind = "waiting"
    text: str = ""
    models: tuple[str, ...] = ()


class Phase(NamedTuple):
    """A part of the time of a request.

    Attributes:
        kind: what was done in it.
        began, ended: seconds of ``time.monotonic``; ``ended`` is None for the last phase of a request that is not over.
        text: what the request waited for, or what was computed, as a sentence without its full stop.
        models: ids of other models that the sentence is about; their names follow it.
    """

    kind: PhaseKind
    began: float
    ended: float | None
    text: str
    models: tuple[str, ...] = ()


class TokenCounts(NamedTuple):
    """Tokens of a request, as far as they are known."""

    prompt: int
    cached: int
    answer: int


def phases(
    steps: Sequence[Step], times: RequestTimings, tokens: TokenCounts, *, has_stages: bool = True
) -> list[Phase]:
    """Return the phases of a request, in order and without gaps, from its arrival to its end.

    Args:
        steps: in the order of their times.
        times: of the request.
        tokens: what it had computed.
        has_stages: whether engines report when they begin such a request, as they do for text alone.
    """
    known = [step._replace(began=max(step.began, times.arrived)) for step in steps]
    if not known or known[0].began - times.arrived >= MIN_PHASE_S:
        known.insert(0, Step(times.arrived, text="It waits for its turn"))
    found: list[Phase] = []
    for step, following in zip(known, [*known[1:], None], strict=True):
        ended = (times.ended or None) if following is None else following.began
        if not step.is_granted:
            found.append(Phase(step.kind, step.began, ended, step.text, step.models))
        elif has_stages:
            is_first = not any(each.is_granted and each.began < step.began for each in known)
            found += _in_engine(step.began, ended, times, tokens, is_first=is_first)
        else:
            found.append(Phase("prefill", step.began, ended, "Its engine computes it"))
    long = [phase for phase in found if phase.ended is None or phase.ended - phase.began >= MIN_PHASE_S] or found[-1:]
    # A gap that a short phase leaves belongs to the phase before it; one at the beginning, to the first.
    if long:
        long[0] = long[0]._replace(began=times.arrived)
    return [phase._replace(ended=later.began) for phase, later in pairwise(long)] + long[-1:]


def _in_engine(
    began: float, ended: float | None, times: RequestTimings, tokens: TokenCounts, *, is_first: bool
) -> list[Phase]:
    """Return the phases of a request from a grant to what follows it: its wait for a place, prefill and decode."""
    marks: list[tuple[float, PhaseKind, str]] = []
    if is_first:
        marks.append((began, "waiting", "It is in the engine, and waits for a place in the batch"))
        if times.started >= began:
            marks.append((times.started, "prefill", _prefill_text(tokens)))
        if times.first >= began:
            marks.append((times.first, "decode", f"It writes its answer: {count_text(tokens.answer, 'token')}"))
    elif times.first and times.first <= began:
        marks.append((began, "decode", "It goes on with its answer where it was suspended"))
    else:
        marks.append((began, "prefill", "It is taken up again where it was suspended"))
        if times.first:
            marks.append((times.first, "decode", f"It writes its answer: {count_text(tokens.answer, 'token')}"))
    within = [mark for mark in marks if ended is None or mark[0] <= ended]
    ends = [*(at for at, _, _ in within[1:]), ended]
    return [Phase(kind, at, end, text) for (at, kind, text), end in zip(within, ends, strict=True)]


def _prefill_text(tokens: TokenCounts) -> str:
    computed = max(0, tokens.prompt - tokens.cached)
    cached = f", {count_text(tokens.cached, 'token')} more were computed before" if tokens.cached else ""
    return f"Its prompt is computed: {count_text(computed, 'token')}{cached}"
