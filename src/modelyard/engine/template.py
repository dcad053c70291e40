"""Chat templates: a conversation becomes the text that its model was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from modelyard.errors import InvalidRequest, UnsupportedOperation

# Largest product in a template, in items of a sequence or bits of a number.
_LARGEST_PRODUCT = 1_000_000


class _Sandbox(ImmutableSandboxedEnvironment):
    """Refuses products so large that one alone takes all memory, or stops every engine of the process for minutes.

    Jinja computes constants when it compiles: without this, ``{{ 9 ** (9 ** 9) }}`` would hang while the model loads.
    """

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        match operator, left, right:
            case "**", int(), int():
                size = left.bit_length() * right
            case "*", int(), int():
                size = left.bit_length() + right.bit_length()
            case (_, int() as times, Sequence() as items) | (_, Sequence() as items, int() as times):
                size = times * len(items)
            case _:
                size = 0
        if size > _LARGEST_PRODUCT:
            raise SecurityError(f"a product with '{operator}' is too large")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """``{% generation %}`` marks what a model is trained on; its content is written out as it is."""

    tags = {"generation"}  # noqa: RUF012 (as the base declares it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Refused(TemplateError):
    """The template itself refused the conversation, through raise_exception."""


def _refuse(message: str) -> NoReturn:
    raise _Refused(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own tojson escapes HTML, which no model was trained on. The parameters are Hugging Face's, in its order.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _reason(error: Exception) -> str:
    return (error.message if isinstance(error, TemplateSyntaxError) else str(error)) or type(error).__name__


def _now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)


# What a template is given to find out what it reads.
_PROBE: Mapping[str, str] = {"role": "user", "content": "lorem"}


def _in_parts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    text = message.get("content")
    return {**message, "content": [{"type": "text", "text": text}]} if isinstance(text, str) else message


class ChatTemplate:
    """A Jinja chat template, run in a sandbox that can neither change its input nor reach Python.

    variables are the names that it reads.

    Offers what Hugging Face's ``apply_chat_template`` offers to templates: ``raise_exception``, ``strftime_now``,
    ``tojson``, loop controls, ``generation`` blocks, trimmed blocks, ``bos_token``, ``eos_token`` and ``tools``;
    ``documents`` are none. Single products are bounded; time and memory as a whole are not: a template is trusted as
    far as the weights that it comes with.

    Source: https://huggingface.co/docs/transformers/chat_templating_writing

    Raises:
        UnsupportedOperation: ``source`` is not valid Jinja.
    """

    def __init__(self, source: str, *, bos_token: str, eos_token: str) -> None:
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_refuse, strftime_now=_now)
        self.source = source
        self.variables: frozenset[str] = frozenset()
        self._names = {"bos_token": bos_token, "eos_token": eos_token, "documents": None}
        self._wants_parts = False
        try:
            self._template = environment.from_string(source)
            self.variables = frozenset(meta.find_undeclared_variables(environment.parse(source)))
        except Exception as error:
            # What nests too deeply fails in Jinja's compiler or in Python's, each in its own way.
            line = f" (line {error.lineno})" if isinstance(error, TemplateSyntaxError) else ""
            raise UnsupportedOperation(
                f"The model's chat template cannot be used: {_reason(error)}{line}. "
                "Set chat_template in its configuration to one that works."
            ) from error
        self._wants_parts = not self._shows(_PROBE) and self._shows(_in_parts(_PROBE))

    def _shows(self, message: Mapping[str, Any]) -> bool:
        """Whether the content of a message is in what it writes."""
        try:
            return _PROBE["content"] in self._template.render(
                messages=[message], add_generation_prompt=True, **self._names
            )
        except Exception:  # noqa: BLE001 (a template is foreign code: render says what is wrong with it)
            return False

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
            InvalidRequest: the template refuses the conversation (for example: roles that do not alternate), or
                needs something that the messages lack.
        """
        if self._wants_parts:
            messages = [_in_parts(message) for message in messages]
        try:
            names = {"add_generation_prompt": True, **self._names, "messages": messages, "tools": list(tools) or None}
            return self._template.render({**(options or {}), **names})
        except _Refused as error:
            raise InvalidRequest(f"The model's chat template refuses the conversation: {error}", "messages") from error
        except Exception as error:
            # A template is foreign code: whatever it raises, recursion without end too, concerns this request alone.
            raise InvalidRequest(
                f"The model's chat template cannot write these messages out: {_reason(error)}", "messages"
            ) from error
