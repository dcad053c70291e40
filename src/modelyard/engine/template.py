"""Chat templates: a conversation becomes the text that its model was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from modelyard.errors import InvalidRequest, UnsupportedOperation


class _Refused(TemplateError):
    """The template itself refused the conversation, through raise_exception."""


def _refuse(message: str) -> NoReturn:
    raise _Refused(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    # Jinja's own tojson escapes HTML, which no model was trained on.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)


class ChatTemplate:
    """A Jinja chat template, run in a sandbox that can neither change its input nor reach Python.

    Offers what Hugging Face's ``apply_chat_template`` offers to templates: ``raise_exception``, ``strftime_now``,
    ``tojson``, loop controls, trimmed blocks, ``bos_token`` and ``eos_token``.

    Source: https://huggingface.co/docs/transformers/chat_templating_writing

    Raises:
        UnsupportedOperation: ``source`` is not valid Jinja.
    """

    def __init__(self, source: str, *, bos_token: str, eos_token: str) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_refuse, strftime_now=_now)
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        try:
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise UnsupportedOperation(
                f"The model's chat template cannot be used: {error.message} (line {error.lineno}). "
                "Set chat_template in its configuration to one that works."
            ) from error

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The prompt for ``messages``, open for the assistant's next turn.

        Raises:
            InvalidRequest: the template refuses the conversation (for example: roles that do not alternate), or
                needs something that the messages lack.
        """
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._tokens)
        except _Refused as error:
            raise InvalidRequest(f"The model's chat template refuses the conversation: {error}", "messages") from error
        except Exception as error:
            # A template is foreign code: whatever it raises, recursion without end too, concerns this request alone.
            raise InvalidRequest(
                f"The model's chat template cannot write these messages out: {error}", "messages"
            ) from error
