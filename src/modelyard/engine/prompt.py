"""A request's prompt becomes token ids, or is refused before it costs anything."""

from __future__ import annotations

from collections.abc import Callable

from modelyard.engine.dialogue import Dialogue, Written
from modelyard.engine.messages import Chat, Infill, Prompt, Text, Tokens
from modelyard.errors import ContextLengthExceeded, InvalidRequest, UnsupportedOperation

# A text is tokenised in growing parts, so that one of 50 MB is refused after a part as large as the context.
_PROBE_BYTES_PER_TOKEN = 8

Tokenize = Callable[[str, bool], list[int]]


class PromptReader:
    """Reads prompts for one model.

    Args:
        tokenize: text and whether to put the begin token before it -> ids.
        dialogue: how a chat is written out; None where the model has no usable template.
        why_no_chat: what a chat is answered in that case.
        begin_token: text of the token that begins a sequence.
        vocab_size: ids are below it.
        context_length: tokens that one sequence may hold.
        infill: see ``Model.infill_tokens``.
    """

    def __init__(
        self,
        tokenize: Tokenize,
        *,
        dialogue: Dialogue | None,
        why_no_chat: str,
        begin_token: str,
        vocab_size: int,
        context_length: int,
        infill: tuple[int, int, int] | None = None,
    ) -> None:
        self._infill = infill
        self._tokenize = tokenize
        self._dialogue = dialogue
        self._why_no_chat = why_no_chat
        self._begin_token = begin_token
        self._vocab_size = vocab_size
        self._context_length = context_length

    def read(self, prompt: Prompt | Written) -> list[int]:
        """Token ids of ``prompt``: at least one, and fewer than the context holds.

        Raises:
            UnsupportedOperation: a chat, and the model has no usable chat template.
            ContextLengthExceeded: it leaves no room for an answer.
            InvalidRequest: the template refuses it, it is empty, or an id is outside the vocabulary.
        """
        match prompt:
            case Chat():
                return self.read(self.write(prompt))
            case Written(text):
                param, tokens = "messages", self._tokens_of(text, "messages")
            case Text(text):
                param, tokens = "prompt", self._tokens_of(text, "prompt")
            case Infill(before, behind):
                param, tokens = "suffix", self._with_gap(before, behind)
            case Tokens(ids):
                param, tokens = "prompt", self._checked(ids)
        if not tokens:
            raise InvalidRequest("The prompt is empty.", param)
        if len(tokens) >= self._context_length:
            raise ContextLengthExceeded(self._context_length, len(tokens), param)
        return tokens

    def write(self, chat: Chat) -> Written:
        """The text of a conversation, and how the answer is to be read.

        Raises:
            UnsupportedOperation: the model has no usable chat template.
            InvalidRequest: the template refuses it.
        """
        if self._dialogue is None:
            raise UnsupportedOperation(self._why_no_chat, "model")
        return self._dialogue.write(chat)

    def _with_gap(self, before: str, behind: str) -> list[int]:
        """Prefix, suffix, middle: the order that models for code are trained on.

        Source: M. Bavarian et al., "Efficient Training of Language Models to Fill in the Middle", 2022.
        """
        if self._infill is None:
            raise UnsupportedOperation("This model has no tokens for filling gaps: leave 'suffix' out.", "suffix")
        prefix, suffix, middle = self._infill
        head = self._tokens_of("", "prompt") if self._begin_token else []
        return [*head, prefix, *self._plain(before), suffix, *self._plain(behind), middle]

    def _plain(self, text: str) -> list[int]:
        if len(text) > self._context_length * _PROBE_BYTES_PER_TOKEN * 4:
            raise ContextLengthExceeded(self._context_length, None, "suffix")
        return self._tokenize(text, False) if text else []

    def _tokens_of(self, text: str, param: str) -> list[int]:
        # Most templates write the begin token themselves; a second one would derail the model.
        add_begin = not (self._begin_token and text.startswith(self._begin_token))
        probe = self._context_length * _PROBE_BYTES_PER_TOKEN
        while len(text) > probe:
            if len(self._tokenize(text[:probe], add_begin)) > self._context_length:
                raise ContextLengthExceeded(self._context_length, None, param)
            probe *= 4
        return self._tokenize(text, add_begin)

    def _checked(self, ids: tuple[int, ...]) -> list[int]:
        for token in ids:
            if not 0 <= token < self._vocab_size:
                raise InvalidRequest(
                    f"The prompt holds token {token}, but this model's vocabulary has ids 0 to {self._vocab_size - 1}.",
                    "prompt",
                )
        return list(ids)
