"""Chat templates, which turn a conversation into the text that the model was trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final

from modelyard.engine.chat.marked_text import MarkedText, from_runs
from modelyard.engine.chat.template_processes import RendersTemplates
from modelyard.errors import ConversationTooLong, InvalidRequest, PromptUnread, UnsupportedOperation
from modelyard.system.bounded.pool import ProcessUnavailable

# Twice the longest context of any model that llama.cpp reads, in English text. A render may take 64 MB of memory.
MAX_CONVERSATION_LENGTH: Final = 16 << 20
"""Limit of a template's input, in bytes of JSON."""

MAX_TEMPLATE_LENGTH: Final = 1_000_000
"""Limit of a template, in characters. The longest published ones have 30,000."""

_MAX_SHOWN_LENGTH: Final = 80

# A message that shows which form of content a template reads.
_PROBE: Mapping[str, str] = {"role": "user", "content": "lorem"}


def _in_parts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    text = message.get("content")
    return {**message, "content": [{"type": "text", "text": text}]} if isinstance(text, str) else message


@dataclass(frozen=True, slots=True)
class Trial:
    """A conversation for a template; the attributes are those of ``ChatTemplate.render``."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    _: KW_ONLY
    opens_turn: bool = True
    without_tools: Sequence[Any] | None = None


def _plain(value: Any) -> Any:
    """Convert a mapping for ``json.dumps``, which accepts only ``dict``."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__} is no JSON")


class ChatTemplate:
    """A Jinja chat template, run in a sandbox that cannot reach Python, on a copy of its input.

    Templates may use everything that Hugging Face's ``apply_chat_template`` provides: ``raise_exception``,
    ``strftime_now``, ``tojson``, loop controls, ``generation`` blocks, trimmed blocks, ``bos_token``, ``eos_token`` and
    ``tools``; ``documents`` is None. A template runs in a process of its own, which limits its time and memory: see
    ``chat.template_program``. Every method may be called on any thread, and blocks while the template runs.

    Source: https://huggingface.co/docs/transformers/chat_templating_writing

    Args:
        source: the template.
        bos_token, eos_token: texts of the tokens that begin and end a sequence.
        processes: renders it.
        name: name of the model, for errors.

    Attributes:
        variables: names of the variables that it reads.

    Raises:
        UnsupportedOperation: ``source`` is not valid Jinja, or does not end within the limits for any conversation.
        PromptUnread: no process can run it.
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
        # (line of the template, line of the code that Jinja compiles it to), in ascending order.
        self._lines: Sequence[tuple[int, int]] = ()
        answer = self._ask(None)
        if "fault" in answer:
            line = answer.get("line")
            raise _unusable(f"{answer['why']}{'' if line is None else f' (line {line})'}")
        self.variables: frozenset[str] = frozenset(answer["variables"])
        self._lines = answer["lines"]
        self._needs_parts = not self._renders_content(_PROBE) and self._renders_content(_in_parts(_PROBE))

    def _renders_content(self, message: Mapping[str, Any]) -> bool:
        """Whether the prompt contains the content of a message.

        Raises:
            UnsupportedOperation: a limit stopped the render.
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
        *,
        opens_turn: bool = True,
        without_tools: Sequence[Any] | None = None,
    ) -> MarkedText:
        """Return the prompt for ``messages``, whose contents are texts.

        It is marked with what the template wrote; all the rest is the request's, and may not become control tokens.

        The templates of some models with images ignore contents that are not lists of parts, so they get lists.
        llama.cpp detects and handles such templates in the same way.

        Args:
            messages: the conversation.
            tools: functions that the model may call, in OpenAI's shape.
            options: further variables of the template, such as enable_thinking. They cannot replace those set here.
            opens_turn: whether the prompt ends with the beginning of the assistant's next turn.
            without_tools: what the template gets as ``tools`` where there are none.

        Raises:
            InvalidRequest: the template refuses the conversation (for example because roles do not alternate), needs
                something that the messages lack, or was stopped by a limit; or the conversation is not JSON.
            PromptUnread: no process can run the template.
        """
        trial = Trial(messages, tools, opens_turn=opens_turn, without_tools=without_tools)
        answer = self._ask(_as_json({**(options or {}), **self._variables_of(trial)}))
        match answer.get("fault"):
            case None:
                return from_runs(answer["text"], answer["runs"])
            case "refused":
                why = f"refuses the conversation: {answer['why']}"
            case "stopped":
                why = f"{self._stopped(answer)}. Send another conversation, or have another chat_template configured."
            case _:
                why = f"cannot write these messages out: {answer['why']}"
        raise InvalidRequest(f"The model's chat template {why}", "messages")

    def try_all(self, trials: Sequence[Trial]) -> list[str | None]:
        """Return the prompt for each conversation; None for those that the template refuses or fails at.

        If a limit stopped the renders, which all trials share, there is no prompt for any.

        Raises:
            PromptUnread: no process can run the template.
        """
        answer = self._ask(_as_json([self._variables_of(trial) for trial in trials]))
        texts: list[str | None] = answer.get("texts", [None] * len(trials))
        return texts

    def _variables_of(self, trial: Trial) -> dict[str, Any]:
        messages = [_in_parts(message) for message in trial.messages] if self._needs_parts else trial.messages
        tools = list(trial.tools) or (None if trial.without_tools is None else list(trial.without_tools))
        return {"add_generation_prompt": trial.opens_turn, **self._names, "messages": messages, "tools": tools}

    def _ask(self, names: bytes | None) -> dict[str, Any]:
        try:
            return self._processes.ask(self._digest, self.source, names)
        except ProcessUnavailable as failure:
            raise PromptUnread(self._name, f"its chat template could not be run: {failure}") from failure

    def _stopped(self, answer: Mapping[str, Any]) -> str:
        """Return which limit stopped the template, and at which line."""
        line, code_line = answer.get("line"), answer.get("code_line")
        if line is None and code_line is not None:
            line = max((ours for ours, code in self._lines if code <= code_line), default=1)
        if line is None:
            return str(answer["why"])
        lines = self.source.split("\n")
        text = lines[line - 1].strip() if line <= len(lines) else ""
        shown = text if len(text) <= _MAX_SHOWN_LENGTH else f"{text[:_MAX_SHOWN_LENGTH]}…"
        return f"{answer['why']} (line {line}: {shown})"


def _unusable(reason: str) -> UnsupportedOperation:
    return UnsupportedOperation(
        f"The model's chat template cannot be used: {reason}. Set chat_template in its configuration to one that works."
    )


def _as_json(names: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> bytes:
    """Return a template's variables, or a list of them, as JSON, in which lone surrogates and NaN are kept.

    Raises:
        InvalidRequest: they are not JSON, nest too deeply, or are too long.
    """
    try:
        encoded = json.dumps(names, ensure_ascii=False, default=_plain).encode("utf-8", "surrogatepass")
    except (RecursionError, TypeError, ValueError) as error:
        raise InvalidRequest(
            f"The conversation cannot be given to the model's chat template: {error}", "messages"
        ) from error
    if len(encoded) > MAX_CONVERSATION_LENGTH:
        raise ConversationTooLong(len(encoded), MAX_CONVERSATION_LENGTH)
    return encoded
