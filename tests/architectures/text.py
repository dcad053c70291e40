"""Text: token ids, log-probabilities, prefix reuse and suspension, compared with what transformers computes."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from architectures.making import STEPS, Answer, Made
from architectures.server import LEVELS, Refusal, Served, serving

# Greedy choices between tokens that are so near each other in log-probability are no difference.
NEAR: Final = 0.03
# How far log-probabilities may be off in full precision, and as a multiple of what rounding alone does.
MOST: Final = 0.1
_SWAYS: Final = 3.0
# How far they may typically be off with quantised weights. Rounded routers of small random models choose other experts:
# this tells that a model is served and near, while full precision tells that it is right.
MAX_TYPICAL: Final[Mapping[str, float]] = {"F32": 0.05, "Q8_0": 3.0, "Q4_K_M": 3.0}

_SUSPENDED_TOKENS: Final = 160
# Of the likeliest tokens, so many must be those of transformers.
_MIN_COMMON: Final = 3


@dataclass(slots=True)
class Compared:
    """How an answer compares.

    Attributes:
        equal: leading tokens that are those of transformers, of ``STEPS``.
        lead: by how much transformers prefers its token where they part; None where they do not.
        off: the largest difference of log-probabilities up to there.
        typical: the median of these differences.
        cached: tokens of the prompt that were not computed again.
        same_prompt: whether the prompt has the same token ids.
        sway: how far the answer's own log-probabilities move by rounding alone; see ``making.Answer``.
    """

    equal: int
    lead: float | None
    off: float
    typical: float
    cached: int
    same_prompt: bool
    sway: float

    def is_near(self, level: str) -> bool:
        """Whether it is typically the answer of transformers, as far as a level of quantisation can have it."""
        return self.same_prompt and self.typical <= max(MAX_TYPICAL[level], self.sway if level == "F32" else 0.0)

    @property
    def is_exact(self) -> bool:
        """Whether it is the answer of transformers, but for what rounding does."""
        if not self.same_prompt or self.off > max(MOST, _SWAYS * self.sway):
            return False
        return self.equal == STEPS or (self.lead is not None and self.lead < max(NEAR, self.sway))


@dataclass(slots=True)
class TextResult:
    """What came of serving one architecture.

    Attributes:
        levels: by label, then by prompt.
        failures: by label, the error that it was refused with.
        again: the long prompt once more, which the engine has.
        suspended: characters of an answer that were the same after a suspension in its midst, and all of them; and how
            clear the choice was at which they part.
        warnings: that /v1/models shows.
        ended: how the process ended, where it did.
    """

    levels: dict[str, dict[str, Compared]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    again: Compared | None = None
    suspended: tuple[int, int, float] | None = None
    warnings: list[str] = field(default_factory=list)
    ended: str = ""


def is_right(level: str, prompts: Mapping[str, Compared]) -> bool:
    """Whether a model at a level answers as transformers does.

    Of several prompts one may part from it: where two experts are nearly equally good, rounding chooses.
    """
    if not all(one.is_near(level) for one in prompts.values()):
        return False
    return level != "F32" or sum(not one.is_exact for one in prompts.values()) <= (1 if len(prompts) > 1 else 0)


def compare_text(name: str, made: Made, levels: Sequence[str] = tuple(LEVELS)) -> TextResult:
    """Serve a checkpoint at ``levels``, the first of which is full precision, and compare.

    Raises:
        Ended: the server did not start, or its process ended.
    """
    result = TextResult()
    with serving(name, made.folder, levels) as served:
        try:
            served.post("/v1/completions", {"model": "F32", "prompt": "the", "max_tokens": 1})
        except Refusal as refusal:
            result.failures["F32"] = str(refusal)
            return result
        result.warnings = _warnings(served)
        if not made.answers:
            return result
        result.levels["F32"] = {prompt: compare(served, "F32", answer, text) for prompt, text, answer in _asked(made)}
        text, answer = _long(made)
        result.again = compare(served, "F32", answer, text)
        result.suspended = _suspend(served, text)
        for level in levels[1:]:
            try:
                result.levels[level] = {"long": compare(served, level, answer, text)}
            except Refusal as refusal:
                result.failures[level] = str(refusal)
    return result


def _asked(made: Made) -> list[tuple[str, str, Answer]]:
    from architectures.words import PROMPTS

    return [(prompt, text, made.answers[prompt]) for prompt, text in PROMPTS.items()]


def _long(made: Made) -> tuple[str, Answer]:
    from architectures.words import LONG

    return LONG, made.answers["long"]


def _warnings(served: Served) -> list[str]:
    models = served.get("/v1/models")["data"]
    return next((list(model.get("warnings", ())) for model in models if model["id"] == "F32"), [])


def compare(served: Served, level: str, wanted: Answer, text: str) -> Compared:
    """Ask a model at a level to continue ``text``.

    Raises:
        Refusal, Ended: it does not.
    """
    said = served.post(
        "/v1/completions",
        {"model": level, "prompt": text, "max_tokens": STEPS, "temperature": 0, "logprobs": 12, "ignore_eos": True},
    )
    ids = served.post("/tokenize", {"model": level, "prompt": text})["tokens"]
    logprobs = said["choices"][0]["logprobs"]
    pieces = [_plain(piece) for piece in wanted.pieces]
    equal = _common(list(map(str.strip, logprobs["tokens"])), pieces)
    differences: list[float] = []
    for step, theirs in enumerate(wanted.likeliest[: equal + 1]):
        ours = {token.strip(): value for token, value in (logprobs["top_logprobs"][step] or {}).items()}
        known = {_plain(piece): value for piece, value in theirs.items()}
        both = ours.keys() & known.keys()
        differences += [abs(ours[token] - known[token]) for token in both]
        if len(both) < _MIN_COMMON:
            differences.append(float("inf"))
    usage = said["usage"]
    return Compared(
        equal,
        None if equal == STEPS else wanted.leads[equal],
        max(differences),
        median(differences),
        (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        ids == wanted.prompt_ids,
        wanted.sway,
    )


def _plain(piece: str) -> str:
    return piece.replace("Ġ", " ").replace("▁", " ").strip()


def _common(one: Any, other: Any) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _suspend(served: Served, text: str) -> tuple[int, int, float]:
    """An answer without a pause against one with a suspension after its first token.

    Common characters, and all; and by how much the token at which they part was likelier than the next.
    """
    ask = {
        "model": "F32",
        "prompt": text,
        "max_tokens": _SUSPENDED_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
    }

    def change(to: str, **more: str) -> None:
        served.post(f"/v1/models/{to}", {"model_id": "F32", **more})

    failures: list[Exception] = []

    def swap() -> None:
        try:
            change("unload", mode="suspend")
            change("reload")
        except Exception as failure:
            failures.append(failure)

    answers = []
    for pausing in (False, True):
        # Both begin with an engine that has nothing of the prompt.
        change("unload", mode="drain")
        change("reload")
        swapping = threading.Thread(target=swap)
        answers.append(served.stream(ask, swapping.start if pausing else lambda: None))
        if pausing:
            swapping.join()
    if failures:
        raise failures[0]
    whole, paused = answers
    same = _common(whole, paused) if whole != paused else len(whole)
    return same, len(whole), 0.0 if same == len(whole) else _lead_at(served, ask, same)


def _lead_at(served: Served, ask: Mapping[str, Any], offset: int) -> float:
    """By how much the token that holds the character at ``offset`` of an answer is likelier than the next."""
    logprobs = served.post("/v1/completions", {**ask, "logprobs": 2})["choices"][0]["logprobs"]
    at = 0
    for token, likeliest in zip(logprobs["tokens"], logprobs["top_logprobs"], strict=True):
        at += len(token)
        if at > offset:
            values = sorted(likeliest.values(), reverse=True)
            return float(values[0] - values[1]) if len(values) > 1 else float("inf")
    return float("inf")
