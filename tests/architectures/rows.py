"""From what was found to the cells of the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from architectures.making import STEPS
from architectures.memory import Memory
from architectures.page import RIGHT, Row
from architectures.pictures import PictureResult
from architectures.pooled import Pooled
from architectures.shapes import Architecture
from architectures.sight import Seeing
from architectures.text import NEAR, Compared, is_right
from architectures.vectors import PooledResult

REFUSED: Final = "refused"
ENDED: Final = "ends the process"


def text_row(architecture: Architecture, facts: Mapping[str, Any]) -> Row:
    """The row of an architecture that generates text."""
    row = Row(architecture.name, architecture.model)
    if facts.get("ended"):
        row.text = ENDED
        row.limits.append(facts["ended"])
        return row
    row.limits += facts["warnings"]
    if failure := facts["failures"].get("F32"):
        row.text = REFUSED
        row.limits.append(failure.split(" could not be loaded: ")[-1])
        return row
    levels = {
        level: {prompt: Compared(**one) for prompt, one in prompts.items()}
        for level, prompts in facts["levels"].items()
    }
    wrong = [level for level, prompts in levels.items() if not is_right(level, prompts)]
    row.text = f"differs ({', '.join(wrong)})" if wrong else RIGHT
    if "F32" in wrong:
        row.limits.append(_difference(levels["F32"]))
    row.limits += [f"{level} is refused: {why}" for level, why in facts["failures"].items()]
    if facts["suspended"]:
        same, of, lead = facts["suspended"]
        row.suspend = RIGHT if same == of or lead < NEAR else f"differs after {same} of {of} characters"
    again = Compared(**facts["again"])
    full = levels["F32"]
    reused = (again.cached, full["branch"].cached, full["extend"].cached)
    is_near = again.is_near("F32") and full["branch"].is_near("F32") and full["extend"].is_near("F32")
    row.reuse = (RIGHT if is_near else "differs") + f" ({', '.join(map(str, reused))})"
    memory = facts.get("memory") or {}
    if "failure" in memory:
        row.memory = "not measured"
        row.limits.append(f"Memory was not measured: {memory['failure']}")
    elif memory:
        row.memory = f"{Memory(**memory).ratio:.2f}"
    return row


def _difference(prompts: Mapping[str, Compared]) -> str:
    parts = []
    for prompt, one in prompts.items():
        if not one.same_prompt:
            parts.append(f"the prompt '{prompt}' has other token ids")
        elif not one.is_exact:
            parts.append(
                f"'{prompt}' is the same for {one.equal} of {STEPS} tokens, log-probabilities differ by {one.off:.2f}"
            )
    return f"In full precision {'; '.join(parts)}."


def picture_row(architecture: Seeing, facts: Mapping[str, Any]) -> Row:
    """The row of a model that sees."""
    row = Row(architecture.name, architecture.model)
    if facts.get("ended"):
        row.pictures = ENDED
        row.limits.append(facts["ended"])
        return row
    result = PictureResult(**{**facts, "tokens": tuple(facts["tokens"])})
    if result.failure:
        row.pictures = REFUSED
        row.limits.append(result.failure.split(" could not be loaded: ")[-1])
        return row
    row.pictures = RIGHT if result.is_right else "differs"
    if not result.is_right:
        row.limits.append(
            f"After a picture log-probabilities are off by {result.off:.2f}, where another picture changes them by "
            f"{result.changes:.2f}; the prompt has {result.tokens[0]} tokens, and {result.tokens[1]} in transformers."
        )
    return row


def pooled_row(architecture: Pooled, facts: Mapping[str, Any]) -> Row:
    """The row of a model that embeds or ranks."""
    row = Row(architecture.name, architecture.model)
    if facts.get("ended"):
        row.embeddings = ENDED
        row.limits.append(facts["ended"])
        return row
    result = PooledResult(**facts)
    if failure := result.failures.get("F32"):
        row.embeddings = REFUSED
        row.limits.append(failure.split(" could not be loaded: ")[-1])
        return row
    wrong = [level for level in ("F32", "Q8_0") if not result.is_right(architecture, level)]
    row.embeddings = RIGHT if not wrong else f"differs ({', '.join(wrong)})"
    if not result.same_tokens:
        row.limits.append("Texts have other tokens than in transformers.")
    row.limits += [f"{level} is off by {result.off[level]:.4f}." for level in wrong if level in result.off]
    row.limits += [f"{level} is refused: {why}" for level, why in result.failures.items()]
    return row
