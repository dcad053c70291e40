"""Prompts that end within a message, so that the answer goes on from there.

A template closes each message. So a mark that nobody can guess is put behind the text of the last one, and the prompt
is cut where the mark stands in it. Where a template leaves the last message out, or refuses to end with it, the prompt
opens the assistant's turn, and the text follows.

Source: the same is done by ``continue_final_message`` of Hugging Face's ``apply_chat_template``.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.engine.chat.marked_text import MarkedText, by_template
from modelyard.engine.formats.messages import REASONING, Turn
from modelyard.engine.formats.reasoning import ReasoningFormat

# Stands for text of which a parser only needs to know that there is some.
_SOME_TEXT = "."


@dataclass(frozen=True, slots=True)
class Beginning:
    """The beginning of an answer, which its prompt ends with.

    Attributes:
        turns: the conversation, with a mark behind the text of its last message.
        mark: the mark.
        text: the text before the mark.
        is_reasoning: whether that text is reasoning; else it is content.
        reasoning: the reasoning before the content; "" if the text itself is reasoning.
    """

    turns: tuple[Turn, ...]
    mark: str
    text: str
    is_reasoning: bool
    reasoning: str = ""

    @property
    def before(self) -> tuple[Turn, ...]:
        """The conversation without its last message, and with an empty one of the user where there is no other."""
        return self.turns[:-1] or (Turn({"role": "user", "content": ""}, ()),)

    def cut(self, prompt: MarkedText, reasoning: ReasoningFormat | None) -> MarkedText | None:
        """Return ``prompt`` up to the mark; None if it has no mark.

        Where the template opens reasoning before the text, whether or not there is any, it is closed.
        """
        at = prompt.rfind(self.mark)
        if at < 0:
            return None
        head = self._head(prompt[:at])
        is_inside = reasoning is not None and not self.is_reasoning and reasoning.opened_by(head)
        return self.behind(head, reasoning) if is_inside else prompt[:at]

    def _head(self, prompt: MarkedText) -> MarkedText:
        """Return a prompt without the text at its end, which templates may trim."""
        text = self.text if prompt.endswith(self.text) else self.text.lstrip()
        return prompt.removesuffix(text)

    def behind(self, opened: MarkedText, reasoning: ReasoningFormat | None) -> MarkedText:
        """Return ``opened``, a prompt that opens the assistant's turn, with the text behind it.

        The markers of the reasoning are marked as the template's, and the text as content.
        """
        if reasoning is None:
            return opened + self.text
        is_open = reasoning.opened_by(opened)
        if (self.is_reasoning or self.reasoning) and not is_open:
            opened, is_open = opened + by_template(reasoning.open), True
        if is_open and not self.is_reasoning:
            opened = opened + self.reasoning + by_template(f"{reasoning.close}\n\n")
        return opened + self.text

    def begun(self, prompt: MarkedText, opened: MarkedText, reasoning: ReasoningFormat | None) -> str:
        """Return ``Reading.begun`` for ``prompt``, which ends with the text.

        Args:
            prompt: the prompt.
            opened: the prompt that opens the assistant's turn in its place.
            reasoning: how the model reasons.
        """
        own = _SOME_TEXT if self.text.strip() else ""
        if self.is_reasoning and reasoning is not None:
            return reasoning.open + own
        head = self._head(prompt)
        starts = [opened]
        if reasoning is not None and reasoning.opened_by(opened):
            starts.append(opened.rstrip().removesuffix(reasoning.open.rstrip()))
        for start in starts:
            if head.startswith(start):
                is_open = reasoning is not None and start is opened and reasoning.opened_by(opened)
                return f"{reasoning.open if is_open and reasoning is not None else ''}{head[len(start) :]}{own}"
        return own


def beginning_of(turns: Sequence[Turn], reasoning: ReasoningFormat | None) -> Beginning | None:
    """Return the beginning of the answer that the last of ``turns`` is; None if there is nothing to go on from.

    Reasoning in the text of the last message, between the model's own markers, counts as reasoning: the template
    writes these markers itself, where text never becomes control tokens.
    """
    if not turns or turns[-1].calls or not isinstance(turns[-1].message["content"], str):
        return None
    last = turns[-1]
    content: str = last.message["content"]
    thoughts: str = last.message.get(REASONING) or ""
    if not content and (not thoughts or reasoning is None):
        return None
    is_reasoning = not content
    if reasoning is not None and last.role == "assistant" and not thoughts:
        marker = reasoning.open.strip()
        if content.lstrip().startswith(marker):
            thoughts, closed, content = content.lstrip().removeprefix(marker).lstrip("\n").partition(reasoning.close)
            is_reasoning = not closed
            content = content.lstrip("\n")
    mark = f"<end {secrets.token_hex(8)}>"
    text = thoughts if is_reasoning else content
    message: dict[str, Any] = {**last.message, "content": "" if is_reasoning else content + mark}
    if thoughts:
        message[REASONING] = thoughts + mark if is_reasoning else thoughts
    marked = Turn(message, last.places)
    return Beginning((*turns[:-1], marked), mark, text, is_reasoning, "" if is_reasoning else thoughts)
