"""A chat: its conversation, its model and its settings, and how a message is sent and answered."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modelyard.cli.chat.answering import Answer, receive
from modelyard.cli.chat.attachments import kind_of, read_media, take_dropped
from modelyard.cli.chat.client import Client, ModelEntry
from modelyard.cli.chat.conversation import Attachment, Conversation, Turn
from modelyard.cli.chat.loading import load_visibly
from modelyard.cli.chat.requests import TEXT_MAX_TOKENS, answer_request, answer_room, may_be_full, tokens_request
from modelyard.cli.chat.statistics import Totals, speed_line
from modelyard.cli.chat.stored import PromptHistory, SavedConversations
from modelyard.cli.chat.terminal import Terminal
from modelyard.errors import InvalidRequest, ServerRefused


@dataclass(frozen=True, slots=True)
class Switches:
    """What the user chose for all answers.

    Attributes:
        settings: values of settings by name.
        thinks: whether the model is to think; None: it decides.
        hides_reasoning: whether only the time of the reasoning is shown.
        is_verbose: whether the speed is shown after each answer.
        answers_json: whether answers are JSON objects.
        uses_tools: whether the model may call the server's tools.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    thinks: bool | None = None
    hides_reasoning: bool = False
    is_verbose: bool = False
    answers_json: bool = False
    uses_tools: bool = True


@dataclass
class Chat:
    """The state of a chat, which commands change.

    Attributes:
        client: speaks to the server.
        terminal: shows answers and notes.
        saved: conversations on disk.
        history: messages of the prompt, if they are kept in a file.
        model: the model that answers next.
        model_ids: ids of all models, for completion.
        attachments, texts: what goes with the next message.
        unanswered: the last message, if it was taken out of the conversation because it has no answer.
        prefill: what can be edited at the next prompt.
        is_editing: whether the next message replaces the last one.
        saved_as: name under which this conversation was saved or loaded.
        used_tokens: tokens of the conversation with its last answer; None: not known.
    """

    client: Client
    terminal: Terminal
    saved: SavedConversations
    history: PromptHistory | None
    model: ModelEntry
    switches: Switches = field(default_factory=Switches)
    conversation: Conversation = field(default_factory=Conversation)
    model_ids: list[str] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    unanswered: Turn | None = None
    prefill: str = ""
    is_editing: bool = False
    saved_as: str | None = None
    used_tokens: int | None = 0
    totals: Totals = field(default_factory=Totals)
    last_timings: Mapping[str, Any] = field(default_factory=dict)

    # The model

    def use(self, model: ModelEntry) -> None:
        """Go on with a model, which is loaded first.

        Raises:
            ServerUnusable: the load failed.
            UnsupportedOperation: it generates no text.
        """
        loaded = load_visibly(self.client, model, self.terminal.notes)
        is_other = loaded.id != self.model.id
        self.model = loaded
        if is_other:
            self.used_tokens = None
            # What did not fit one context may fit another.
            self.conversation = replace(self.conversation, left_out=0)
        if not loaded.can_chat:
            self.terminal.note(
                f"{loaded.id} is a base model: it has no chat template, so it does not answer but continues your text. "
                f"It stops after {TEXT_MAX_TOKENS} tokens (/set max_tokens); Enter alone lets it go on."
            )

    # Messages and answers

    def say(self, text: str) -> None:
        """Send a message with what is attached to it, and show the answer.

        Raises:
            ModelyardError: an attachment cannot be read, or the request failed; nothing is lost.
        """
        text = self._attach_dropped(text)
        parts = [*self.texts, text] if text else self.texts
        turn = Turn("user", "\n\n".join(parts), attachments=tuple(self.attachments))
        # A file that the model refuses does not go with the next message as well; /retry and /edit have it.
        self.attachments, self.texts = [], []
        if turn.attachments and not self.model.can_chat:
            self.unanswered = turn
            raise InvalidRequest(f"{self.model.id} is a base model: it takes text alone. /model chooses another one.")
        if not turn.text and not turn.attachments:
            return
        self.ask(turn)

    def ask(self, turn: Turn) -> None:
        """Send a message, and show the answer. The message is kept as ``unanswered`` where none comes.

        Raises:
            ServerUnusable: the request failed.
        """
        before = self.conversation
        self.conversation = before.plus(turn)
        try:
            self.answer()
        finally:
            if self.conversation.turns and self.conversation.turns[-1] is turn:
                # The turns that were left out for this message may fit with another one.
                self.conversation, self.unanswered = before, turn
            else:
                self.unanswered = None

    def answer(self) -> None:
        """Have the model answer the conversation as it is, and show the answer.

        Raises:
            ServerUnusable: the request failed before anything came.
        """
        left_out = self.conversation.left_out
        self._make_room()
        while True:
            result = self._receive()
            error = result.error
            is_full = isinstance(error, ServerRefused) and error.server_code == "context_length_exceeded"
            shorter = self.conversation.without_oldest() if is_full and result.is_empty else None
            if shorter is None:
                break
            self.conversation = shorter
        if result.text:
            is_partial = result.was_stopped or result.error is not None
            turn = Turn("assistant", result.text, result.reasoning, model=self.model.id, is_partial=is_partial)
            self.conversation = self.conversation.plus(turn)
        self._count(result)
        if self.conversation.left_out > left_out:
            self.terminal.note(
                f"(The context of {self.model.context_length or '?'} tokens is full: the oldest "
                f"{self.conversation.left_out} turns are no longer sent.)"
            )
        if self.switches.is_verbose and result.timings:
            self.terminal.note(speed_line(result.timings))
        if self.terminal.is_terminal:
            self.terminal.write("\n")
        if result.error is not None:
            raise result.error

    def cut(self, conversation: Conversation) -> None:
        """Go on with a shorter or another conversation."""
        self.conversation, self.used_tokens, self.unanswered = conversation, None, None

    def _receive(self) -> Answer:
        switches = self.switches
        path, body = answer_request(
            self.conversation,
            self.model.id,
            switches.settings,
            is_chat=self.model.can_chat,
            thinks=switches.thinks,
            schema="json" if switches.answers_json else None,
            uses_tools=switches.uses_tools,
        )
        view = self.terminal.view()
        note = ""
        try:
            result = receive(
                self.client.stream(path, body),
                view,
                self.terminal.approver(self.client, view),
                shows_reasoning=not switches.hides_reasoning,
            )
            note = end_note(result, body, self.model)
        finally:
            view.close(note)
        return result

    def _make_room(self) -> None:
        """Leave out the oldest turns where the prompt would leave the answer less than its share of the context."""
        length = self.model.context_length
        if length is None or not self.conversation.sent:
            return
        limit = self.switches.settings.get("max_tokens")
        added = self.conversation.sent[-1].text
        if self.used_tokens is not None and not may_be_full(length, limit, self.used_tokens, added):
            return
        most = length - answer_room(length, limit)
        while (shorter := self.conversation.without_oldest()) is not None and self._prompt_tokens() > most:
            self.conversation = shorter

    def _prompt_tokens(self) -> float:
        """Return the tokens of the prompt; infinite where it is longer than the context."""
        try:
            return self.client.count_tokens(
                tokens_request(self.conversation, self.model.id, is_chat=self.model.can_chat)
            )
        except ServerRefused as error:
            if error.server_code == "context_length_exceeded":
                return float("inf")
            # The server counts no images. The answer to the request names what is wrong with it, if anything is.
            return 0

    def _count(self, result: Answer) -> None:
        self.used_tokens = result.usage.get("total_tokens")
        if result.timings:
            self.last_timings, self.totals = result.timings, self.totals.plus(result.timings)

    def _attach_dropped(self, text: str) -> str:
        """Attach images and sound whose paths are in a message, and return the message without them."""
        rest, paths = take_dropped(text, os.path.isfile)
        for path in paths:
            kind = kind_of(path)
            if kind is not None:
                self.attachments.append(read_media(path, kind))
                self.terminal.note(f"Added {kind} '{path}'.")
        return rest


def end_note(answer: Answer, body: Mapping[str, Any], model: ModelEntry, limit_setting: str = "/set max_tokens") -> str:
    """Return what is said below an answer; "": nothing.

    Args:
        answer: how it ended.
        body: what was sent for it.
        model: what answered.
        limit_setting: how the user sets the limit of tokens.
    """
    if answer.was_stopped:
        return "(stopped)" if answer.text else "(stopped before an answer; the message is not part of the conversation)"
    if answer.error is not None:
        return "(broken off)" if answer.text else ""
    if answer.finish_reason == "length":
        limit, tokens = body.get("max_tokens"), answer.usage.get("completion_tokens")
        where = "" if answer.text else " within the reasoning"
        if limit is not None and tokens is not None and tokens >= limit > 0:
            return f"(cut off{where} after {limit} tokens: {limit_setting})" if model.can_chat else ""
        return f"(cut off{where}: the context of {model.context_length or '?'} tokens is full)"
    if not answer.text:
        ended = "after its calls" if answer.calls else "at once"
        return f"(no answer: the model ended {ended}; the message is not part of the conversation)"
    return ""
