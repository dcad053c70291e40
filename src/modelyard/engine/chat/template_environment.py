"""The Jinja of chat templates: a sandbox whose templates mark what they write.

Literals of a template are ``MarkedText``, and so is what filters make of them. Hugging Face's environment has the same
filters, blocks and functions.

Source: transformers, utils/chat_template_utils.py, _compile_jinja_template.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Any, Final, NoReturn

from jinja2 import Environment, Template, TemplateError, nodes, pass_eval_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_indent, do_join, do_title
from jinja2.meta import TrackingCodeGenerator
from jinja2.nodes import EvalContext
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from markupsafe import Markup, escape

from modelyard.engine.chat.marked_text import (
    MarkedText,
    by_template,
    is_by_template,
    joined,
    runs_of,
    unmarked,
)

# Largest product in a template, in items of a sequence or bits of a number. A larger one takes seconds in C.
_MAX_PRODUCT: Final = 1_000_000

# Variables that come from the model's vocabulary.
_VOCABULARY_NAMES: Final = ("bos_token", "eos_token")

# Roles that have a meaning. Many templates make control tokens of them, as "<|" + role + "|>".
_ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


# Methods whose first argument is only looked for.
_SEARCHING: Final = frozenset(
    {"get", "startswith", "endswith", "split", "rsplit", "strip", "lstrip", "rstrip", "replace"}
)

# Methods that put other texts into a text.
_INSERTING: Final = frozenset({"replace", "join", "format"})


class RefusedByTemplate(TemplateError):
    """The template itself refused the conversation, through raise_exception."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Puts marked texts together, and refuses products that would take long in C, where no signal is handled."""

    intercepted_binops = frozenset({"*", "**"})
    concat = staticmethod(joined)
    literal = staticmethod(by_template)

    def getattr(self, obj: Any, attribute: str) -> Any:
        # What a template's own text is put into is content, and the template's text remains its own.
        return super().getattr(MarkedText(obj) if type(obj) is str and attribute in _INSERTING else obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        # Each render has a copy of the conversation for itself, and templates such as Kimi K2's collect messages.
        return (isinstance(obj, list) and attr in ("append", "pop")) or super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return a ``format`` that reaches nothing of Python, and keeps the marks of a literal and of its values."""
        wrapper = super().wrap_str_format(value)
        if wrapper is None or value.__name__ != "format" or not isinstance(pattern := value.__self__, MarkedText):
            return wrapper

        def keep_marks(*args: Any, **kwargs: Any) -> str:
            text = wrapper(*args, **kwargs)
            formatted = _Formatter(self).marked(pattern, args, kwargs)
            return text if formatted is None or formatted != text else formatted

        return keep_marks

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
        if size > _MAX_PRODUCT:
            raise SecurityError(f"a product with '{operator}' is too large")
        return super().call_binop(context, operator, left, right)


class _Formatter(SandboxedFormatter):
    """``str.format`` that keeps marks."""

    def marked(self, pattern: MarkedText, args: Sequence[Any], kwargs: Mapping[str, Any]) -> MarkedText | None:
        """Return the formatted text; None if parts of it depend on others."""
        is_literal = is_by_template(pattern, 0, len(pattern))
        pieces: list[str] = []
        numbers = count()
        for literal, name, spec, conversion in self.parse(pattern):
            pieces.append(by_template(literal) if is_literal else literal)
            if name is None:
                continue
            if spec and "{" in spec:
                return None
            path = f"{next(numbers)}{name}" if name[:1] in ("", ".", "[") else name
            value = self.convert_field(self.get_field(path, args, kwargs)[0], conversion)
            pieces.append(value if isinstance(value, str) and not spec else self.format_field(value, spec or ""))
        return joined(pieces)


class _Generator(CodeGenerator):
    """Writes a template's literals as ``MarkedText``, each of which is made once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._literals: dict[str, str] = {}
        # Constants that only find or compare something, which takes longer with a ``MarkedText``.
        self._unmarked: set[int] = set()

    def _literal(self, text: str) -> str:
        return self._literals.setdefault(text, f"literal_{len(self._literals)}")

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:  # noqa: N802 (as Jinja calls it)
        super().visit_Template(node, frame)
        for text, name in self._literals.items():
            self.writeline(f"{name} = environment.literal({text!r})")

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:  # noqa: N802 (as Jinja calls it)
        if isinstance(node.value, str) and id(node) not in self._unmarked:
            self.write(self._literal(node.value))
        else:
            super().visit_Const(node, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802 (as Jinja calls it)
        self._unmarked.add(id(node.arg))
        super().visit_Getitem(node, frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802 (as Jinja calls it)
        self._unmarked.update(map(id, (node.expr, *(operand.expr for operand in node.ops))))
        super().visit_Compare(node, frame)

    def visit_Call(  # noqa: N802 (as Jinja calls it)
        self, node: nodes.Call, frame: Frame, forward_caller: bool = False
    ) -> None:
        if isinstance(node.node, nodes.Getattr) and node.node.attr in _SEARCHING:
            self._unmarked.update(map(id, node.args[:1]))
        super().visit_Call(node, frame, forward_caller=forward_caller)

    def visit_TemplateData(self, node: nodes.TemplateData, frame: Frame) -> None:  # noqa: N802, ARG002 (Jinja's)
        self.write(self._literal(node.data))

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 (as Jinja calls it)
        self.write("environment.concat(tuple(map(str, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))))")

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return self._literal("".join(group))

    # Jinja computes constants at compile time. Done in the render instead, slow code has a line number.
    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if isinstance(node, nodes.TemplateData):
            return super()._output_child_to_const(node, frame, finalize)
        raise nodes.Impossible


class _Names(TrackingCodeGenerator):
    def _output_child_to_const(self, *_: Any, **__: Any) -> NoReturn:
        raise nodes.Impossible


class _Generation(Extension):
    """Parses ``{% generation %}``, which marks text that a model is trained on, and renders its content unchanged."""

    tags = {"generation"}  # noqa: RUF012 (as the base declares it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> NoReturn:
    raise RefusedByTemplate(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own tojson escapes HTML, which no model was trained on. Parameters: Hugging Face's, in the same order.
    # The result of Jinja's filters, such as map, is a generator.
    options: dict[str, Any] = {"indent": indent, "separators": separators, "sort_keys": sort_keys}
    return json.dumps(value, ensure_ascii=ensure_ascii, default=_as_list, **options)


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, Generator):
        return list(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


class _Safe(Markup):
    """Text that Jinja takes for HTML, and with which it escapes what is added; otherwise it keeps its marks."""

    __slots__ = ("_text",)
    _text: MarkedText

    def __new__(cls, value: Any = "") -> _Safe:
        safe = super().__new__(cls, value)
        text = str(value)
        safe._text = text if isinstance(text, MarkedText) else MarkedText(text)
        return safe

    def __str__(self) -> str:
        return self._text

    def __add__(self, other: Any) -> Any:
        return _safe_sum(super().__add__(other), self, other)

    def __radd__(self, other: Any) -> Any:
        return _safe_sum(super().__radd__(other), other, self)


def _safe_sum(text: Any, first: Any, second: Any) -> Any:
    """Return ``text``, the sum of two texts, with their marks."""
    if not isinstance(text, str):
        # NotImplemented, where one of them is no text.
        return text
    marked = joined((_as_html(first), _as_html(second)))
    return _Safe(marked) if marked == text else text


def _as_html(text: Any) -> str:
    """Return what Jinja makes of a text that is added to HTML, with its marks."""
    if hasattr(text, "__html__"):
        return str(text)
    pieces: list[str] = []
    at = 0
    for index, length in enumerate(runs_of(text)):
        escaped = str(escape(unmarked(text)[at : at + length]))
        pieces.append(escaped if index % 2 else by_template(escaped))
        at += length
    return joined(pieces)


@pass_eval_context
def _join(context: EvalContext, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    # Jinja's own joins with a separator that is no literal where none is given.
    text: str = do_join(context, value, d if isinstance(d, MarkedText) else MarkedText(d), attribute)
    return text


def _title(text: Any) -> str:
    # Jinja's words begin at other characters than Python's.
    titled: str = do_title(text)
    is_literal = isinstance(text, MarkedText) and is_by_template(text, 0, len(text))
    return by_template(titled) if is_literal else titled


def _indent(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    # Jinja's own joins the lines with a line break that is no literal.
    indented = do_indent(text, width, first, blank)
    if not isinstance(text, MarkedText):
        return indented
    margin = width if isinstance(width, str) else by_template(" " * width)
    lines = (text + by_template("\n")).splitlines()
    marked = joined(
        [margin + line if (line or blank) and (index or first) else line for index, line in enumerate(lines)],
        by_template("\n"),
    )
    return marked if marked == indented else indented


def _now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)


def make_environment() -> Environment:
    """Return an environment for one template, so that templates share no state."""
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[loopcontrols, _Generation]
    )
    environment.code_generator_class = _Generator
    environment.filters.update(tojson=_to_json, join=_join, indent=_indent, title=_title, safe=_Safe)
    environment.globals.update(raise_exception=_refuse, strftime_now=_now)
    return environment


def variables(template: Template, source: str) -> list[str]:
    """Return the names that a template reads.

    Source: jinja2.meta.find_undeclared_variables, which would also compute constants.
    """
    names = _Names(template.environment)
    names.visit(template.environment.parse(source))
    return sorted(names.undeclared_identifiers)


def mark_names(names: dict[str, Any]) -> None:
    """Mark those variables of a template of which it may make control tokens: no request chooses their text."""
    for name in _VOCABULARY_NAMES:
        if isinstance(text := names.get(name), str):
            names[name] = by_template(text)
    for message in names.get("messages", ()):
        if (role := message.get("role")) in _ROLES:
            message["role"] = by_template(role)
