"""A conversation as a value: its turns, what of it is sent, and what takes turns away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self


@dataclass(frozen=True, slots=True)
class Attachment:
    """An image or a clip of sound.

    Attributes:
        name: of its file.
        url: a data URL with its content.
    """

    kind: Literal["image", "audio"]
    name: str
    url: str

    def part(self) -> dict[str, Any]:
        """Return it as a part of a message's content."""
        field = f"{self.kind}_url"
        return {"type": field, field: {"url": self.url}}


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side said.

    Attributes:
        text: for an answer without the reasoning.
        reasoning: what the model thought; it is never sent back.
        attachments: what the message shows beside its text.
        model: id of the model that answered; "" for a message.
        is_partial: whether the answer was stopped before its end.
    """

    role: Literal["user", "assistant"]
    text: str
    reasoning: str = ""
    attachments: tuple[Attachment, ...] = ()
    model: str = ""
    is_partial: bool = False

    def message(self) -> dict[str, Any]:
        """Return it as a message of a request."""
        if not self.attachments:
            return {"role": self.role, "content": self.text}
        parts = [attachment.part() for attachment in self.attachments]
        return {"role": self.role, "content": [*parts, {"type": "text", "text": self.text}]}


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation. Its methods return other values.

    Attributes:
        system: the system prompt; None: there is none.
        turns: all turns, the oldest first.
        left_out: how many of the oldest turns are not sent, because they did not fit the model's context.
    """

    system: str | None = None
    turns: tuple[Turn, ...] = ()
    left_out: int = 0

    def plus(self, turn: Turn) -> Self:
        """Return the conversation with one more turn."""
        return replace(self, turns=(*self.turns, turn))

    @property
    def sent(self) -> tuple[Turn, ...]:
        """The turns that are sent."""
        return self.turns[self.left_out :]

    def messages(self) -> list[dict[str, Any]]:
        """Return what a chat completion is sent."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return system + [turn.message() for turn in self.sent]

    def document(self) -> str:
        """Return what a model without a chat template continues: each message begins on a line of its own."""
        text = ""
        for turn in self.sent:
            begins_line = turn.role == "user" and text and not text.endswith("\n")
            text += ("\n" if begins_line else "") + turn.text
        return text

    @property
    def last_question(self) -> Turn | None:
        """The last message of the user."""
        return next((turn for turn in reversed(self.turns) if turn.role == "user"), None)

    @property
    def last_answer(self) -> Turn | None:
        """The last answer."""
        return next((turn for turn in reversed(self.turns) if turn.role == "assistant"), None)

    def before_last_question(self) -> Self:
        """Return the conversation without the user's last message and what follows it."""
        starts = self._questions()
        if not starts:
            return self
        # What was left out stays so, but for the last message that remains.
        last = starts[-2] if len(starts) > 1 else 0
        return replace(self, turns=self.turns[: starts[-1]], left_out=min(self.left_out, last))

    def without_oldest(self) -> Self | None:
        """Return the conversation with one more message and its answer left out.

        None: only the last message is sent, which is never left out.
        """
        later = [start for start in self._questions() if start > self.left_out]
        return replace(self, left_out=later[0]) if later else None

    def cleared(self) -> Self:
        """Return a new conversation with the same system prompt."""
        return replace(self, turns=(), left_out=0)

    def _questions(self) -> Sequence[int]:
        return [index for index, turn in enumerate(self.turns) if turn.role == "user"]
