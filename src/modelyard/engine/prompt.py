"""A request's prompt becomes token ids, or is refused before it costs anything."""

from __future__ import annotations

from collections.abc import Callable

from modelyard.engine.messages import Chat, Prompt, Text, Tokens
from modelyard.engine.template import ChatTemplate
from modelyard.errors import ContextLengthExceeded, InvalidRequest, UnsupportedOperation

# A text is tokenised in growing parts, so that one of 50 MB is refused after a part as large as the context.
_PROBE_BYTES_PER_TOKEN = 8

Tokenize = Callable[[str, bool], list[int]]


class PromptReader:
    """Reads prompts for one model.

    Args:
        tokenize: text and whether to put the begin token before it -> ids.
        template: how a chat is written out; None where the model has no usable one.
        why_no_chat: what a chat is answered in that case.
        begin_token: text of the token that begins a sequence.
        vocab_size: ids are below it.
        context_length: tokens that one sequence may hold.
    """

    def __init__(
        self,
        tokenize: Tokenize,
        *,
        template: ChatTemplate | None,
        why_no_chat: str,
        begin_token: str,
        vocab_size: int,
        context_length: int,
    ) -> None:
        self._tokenize = tokenize
        self._template = template
        self._why_no_chat = why_no_chat
        self._begin_token = begin_token
        self._vocab_size = vocab_size
        self._context_length = context_length

    def read(self, prompt: Prompt) -> list[int]:
        """Token ids of ``prompt``: at least one, and fewer than the context holds.

        Raises:
            UnsupportedOperation: a chat, and the model has no usable chat template.
            ContextLengthExceeded: it leaves no room for an answer.
            InvalidRequest: the template refuses it, it is empty, or an id is outside the vocabulary.
        """
        match prompt:
            case Chat():
                param, tokens = "messages", self._tokens_of(self.written_out(prompt), "messages")
            case Text(text):
                param, tokens = "prompt", self._tokens_of(text, "prompt")
            case Tokens(ids):
                param, tokens = "prompt", self._checked(ids)
        if not tokens:
            raise InvalidRequest("The prompt is empty.", param)
        if len(tokens) >= self._context_length:
            raise ContextLengthExceeded(self._context_length, len(tokens), param)
        return tokens

    def written_out(self, chat: Chat) -> str:
        """The text of a conversation.

        Raises:
            UnsupportedOperation: the model has no usable chat template.
            InvalidRequest: the template refuses it.
        """
        if self._template is None:
            raise UnsupportedOperation(self._why_no_chat, "model")
        tools = () if chat.tool_choice == "none" else chat.tools
        return self._template.render(chat.messages, tools, chat.options)

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
