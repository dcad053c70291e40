"""Chat templates: a conversation becomes the text that its model was trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelyard.engine.chat.template_processes import RendersTemplates
from modelyard.errors import ConversationTooLong, EngineError, InvalidRequest, UnsupportedOperation
from modelyard.system.bounded.pool import ProcessUnavailable

# Twice the context of any model that llama.cpp reads, in English. A render has 64 MB to work in.
MAX_CONVERSATION_LENGTH: Final = 16 << 20
"""Bytes, as JSON, of what a template may be given."""

MAX_TEMPLATE_LENGTH: Final = 1_000_000
"""Characters. The longest that are published have 30,000."""

_SHOWN_OF_A_LINE: Final = 80

# What a template is given to find out what it reads.
_PROBE: Mapping[str, str] = {"role": "user", "content": "lorem"}


def _in_parts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    text = message.get("content")
    return {**message, "content": [{"type": "text", "text": text}]} if isinstance(text, str) else message


def _plain(value: Any) -> Any:
    """A value that JSON has no form for, as one that it has."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__} is no JSON")


class ChatTemplate:
    """A Jinja chat template, run in a sandbox that can neither change its input nor reach Python.

    variables are the names that it reads.

    Offers what Hugging Face's ``apply_chat_template`` offers to templates: ``raise_exception``, ``strftime_now``,
    ``tojson``, loop controls, ``generation`` blocks, trimmed blocks, ``bos_token``, ``eos_token`` and ``tools``;
    ``documents`` are none. It is run in a process of its own, which bounds its time and memory: see
    ``chat.template_program``. Every method may be called on any thread, and blocks while the template is run.

    Source: https://huggingface.co/docs/transformers/chat_templating_writing

    Args:
        source: the template.
        bos_token, eos_token: texts of the tokens that begin and end a sequence.
        processes: where it is run.
        name: of the model, for messages.

    Raises:
        UnsupportedOperation: ``source`` is not valid Jinja, or does not end within the limits for any conversation.
        EngineError: there is no process to run it in.
    """

    def __init__(
        self, source: str, *, bos_token: str, eos_token: str, processes: RendersTemplates, name: str = ""
    ) -> None:
        self.source = source
        self._processes, self._name = processes, name
        self._digest = hashlib.blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        self._names = {"bos_token": bos_token, "eos_token": eos_token, "documents": None}
        if len(source) > MAX_TEMPLATE_LENGTH:
            raise _unusable(f"it has {len(source):,} characters, and {MAX_TEMPLATE_LENGTH:,} are the most")
        # Lines of the template and of the code that Jinja makes of it, both rising.
        self._lines: Sequence[tuple[int, int]] = ()
        answer = self._ask(None)
        if "fault" in answer:
            line = answer.get("line")
            raise _unusable(f"{answer['why']}{'' if line is None else f' (line {line})'}")
        self.variables: frozenset[str] = frozenset(answer["variables"])
        self._lines = answer["lines"]
        self._wants_parts = not self._shows(_PROBE) and self._shows(_in_parts(_PROBE))

    def _shows(self, message: Mapping[str, Any]) -> bool:
        """Whether the content of a message is in what it writes.

        Raises:
            UnsupportedOperation: a limit stopped it.
        """
        answer = self._ask(_as_json({"messages": [message], "add_generation_prompt": True, **self._names}))
        if answer.get("fault") == "stopped":
            raise _unusable(self._stopped(answer))
        return _PROBE["content"] in answer.get("text", "")

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt for ``messages``, whose contents are texts, open for the assistant's next turn.

        A template that only writes contents out that are lists of parts, as those of some models that take images do,
        is given lists; as llama.cpp does it, which finds out in the same way.

        Args:
            messages: the conversation.
            tools: functions that the model may call, in OpenAI's shape.
            options: other names that the template may read, such as enable_thinking. They replace none of ours.

        Raises:
            InvalidRequest: the template refuses the conversation (for example: roles that do not alternate), needs
                something that the messages lack, or was stopped by a limit; or the conversation is no JSON.
            EngineError: there is no process to run it in.
        """
        if self._wants_parts:
            messages = [_in_parts(message) for message in messages]
        names = {"add_generation_prompt": True, **self._names, "messages": messages, "tools": list(tools) or None}
        answer = self._ask(_as_json({**(options or {}), **names}))
        match answer.get("fault"):
            case None:
                text: str = answer["text"]
                return text
            case "refused":
                why = f"refuses the conversation: {answer['why']}"
            case "stopped":
                why = f"{self._stopped(answer)}. Send another conversation, or have another chat_template configured."
            case _:
                why = f"cannot write these messages out: {answer['why']}"
        raise InvalidRequest(f"The model's chat template {why}", "messages")

    def _ask(self, names: bytes | None) -> dict[str, Any]:
        try:
            return self._processes.ask(self._digest, self.source, names)
        except ProcessUnavailable as failure:
            raise EngineError(self._name, f"its chat template could not be run: {failure}") from failure

    def _stopped(self, answer: Mapping[str, Any]) -> str:
        """How a limit stopped it, and at which line."""
        line, code_line = answer.get("line"), answer.get("code_line")
        if line is None and code_line is not None:
            line = max((ours for ours, code in self._lines if code <= code_line), default=1)
        if line is None:
            return str(answer["why"])
        lines = self.source.split("\n")
        text = lines[line - 1].strip() if line <= len(lines) else ""
        shown = text if len(text) <= _SHOWN_OF_A_LINE else f"{text[:_SHOWN_OF_A_LINE]}…"
        return f"{answer['why']} (line {line}: {shown})"


def _unusable(reason: str) -> UnsupportedOperation:
    return UnsupportedOperation(
        f"The model's chat template cannot be used: {reason}. Set chat_template in its configuration to one that works."
    )


def _as_json(names: Mapping[str, Any]) -> bytes:
    """What a template is given, as JSON, in which lone surrogates and NaN stay what they are.

    Raises:
        InvalidRequest: it is no JSON, nests too deeply, or is too long.
    """
    try:
        written = json.dumps(names, ensure_ascii=False, default=_plain).encode("utf-8", "surrogatepass")
    except (RecursionError, TypeError, ValueError) as error:
        raise InvalidRequest(
            f"The conversation cannot be given to the model's chat template: {error}", "messages"
        ) from error
    if len(written) > MAX_CONVERSATION_LENGTH:
        raise ConversationTooLong(len(written), MAX_CONVERSATION_LENGTH)
    return written
