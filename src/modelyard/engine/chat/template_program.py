"""Compiles and renders chat templates, in a process of its own.

A template is foreign code that comes with a model's weights. In Jinja's sandbox it reaches neither files nor Python,
but it can loop without end, or build a text that takes all memory. Here that ends one render, or at worst this process.

The process enforces its limits itself:

- time: a signal raises an exception in the render. Code in C that does not return is not interrupted; the parent ends
  the process a little later, or the limit of processor time does, if the parent is gone.
- memory: RLIMIT_AS, above that of the idle process by what one render may take. Without ``/proc`` (macOS) only the time
  and the length of the text limit the memory.
- the length of the text.

It imports as little as possible, because a render waits for its start.
"""

from __future__ import annotations

import signal
import sys
from collections import OrderedDict
from types import FrameType
from typing import Any, Final

from jinja2 import Template, TemplateSyntaxError, nodes
from jinja2.parser import Parser

from modelyard.engine.chat.marked_text import MarkedText, joined, runs_of
from modelyard.engine.chat.template_environment import RefusedByTemplate, make_environment, mark_names, variables
from modelyard.system.bounded.inside import address_space, lift_limits, limit, serve

# Limit of compiled templates that are kept; more models are seldom served in turns.
_MAX_KEPT_TEMPLATES: Final = 16

# The memory limit is at least this multiple of the input's JSON: texts take up to four bytes a character, and a render
# copies them.
_MEMORY_PER_INPUT_BYTE: Final = 8

# Jinja's name for a template without a file, also in the traces of ``faulthandler``.
_FILE_NAME: Final = "<template>"


class _TimeUp(BaseException):
    """The time of a render is over. A BaseException, which nothing in Jinja catches."""


class _TooLong(Exception):
    """The text of a render exceeds the limit. lineno: the line of the compiled template."""

    def __init__(self, lineno: int) -> None:
        super().__init__(lineno)
        self.lineno = lineno


def _render(template: Template, names: dict[str, Any], max_length: int) -> MarkedText:
    mark_names(names)
    pieces: list[str] = []
    size = 0
    rendering: Any = template.root_render_func(template.new_context(names))
    for piece in rendering:
        size += len(piece)
        if size > max_length:
            raise _TooLong(rendering.gi_frame.f_lineno)
        pieces.append(piece)
    return joined(pieces)


def _try(template: Template, names: dict[str, Any], max_length: int) -> str | None:
    try:
        return _render(template, names, max_length)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (a template is foreign code: it may raise anything)
        return None


class Program:
    """Answers requests, each within the limits.

    A request has the ``digest`` of a template, its ``source`` if this process may not have it, and the ``names`` to
    render it with. The answer is one of:

    - ``text``, the prompt, and ``runs``, which tells what of it the template wrote: see ``marked_text.runs_of``.
    - ``texts``, if ``names`` is a list: the prompt for each of its items, null for those that the template refuses or
      fails at. All of them share the limits of one render.
    - ``variables`` and ``lines``, if the request has no names: the variables that the template reads, and pairs of a
      line of the template and a line of the code that Jinja compiles it to.
    - ``unknown``, if the source is needed.
    - ``fault``, with the reason in ``why``, and the ``line`` if it is known: ``unusable`` (the template is invalid),
      ``refused`` (by raise_exception), ``failed`` or ``stopped`` (by a limit).

    Args:
        limit_s: limit of the processor time of a render, compilation included.
        limit_bytes: limit of its memory.
        max_text_length: limit of its text, in characters.
    """

    def __init__(self, limit_s: float, limit_bytes: int, max_text_length: int) -> None:
        self._limit_s, self._limit_bytes, self._max_text_length = limit_s, limit_bytes, max_text_length
        self._idle_bytes = address_space()
        self._templates: OrderedDict[str, Template] = OrderedDict()

    def answer(self, request: dict[str, Any], input_bytes: int) -> dict[str, Any]:
        """Return the answer to a request of ``input_bytes`` bytes."""
        digest = request["digest"]
        if digest not in self._templates and "source" not in request:
            return {"unknown": True}
        limit_bytes = max(self._limit_bytes, _MEMORY_PER_INPUT_BYTE * input_bytes)
        try:
            self._begin(limit_bytes)
            try:
                return self._work(request)
            finally:
                _end()
        except _TimeUp as stopped:
            return _stopped(f"did not end within {self._limit_s:g} s", self._line(digest, stopped))
        except MemoryError as stopped:
            return _stopped(f"took more than {limit_bytes >> 20} MB of memory", self._line(digest, stopped))
        except _TooLong as stopped:
            why = f"wrote more than {self._max_text_length:,} characters"
            return _stopped(why, self._templates[digest].get_corresponding_lineno(stopped.lineno))
        except RefusedByTemplate as refused:
            return {"fault": "refused", "why": str(refused)}
        except Exception as failure:  # noqa: BLE001 (a template is foreign code: it may raise anything)
            if digest in self._templates:
                return {"fault": "failed", "why": _reason(failure)}
            # Templates that nest too deeply fail in Jinja's compiler or in Python's, with various exceptions.
            line = failure.lineno if isinstance(failure, TemplateSyntaxError) else None
            return {"fault": "unusable", "why": _reason(failure), "line": line}

    def _begin(self, memory_bytes: int) -> None:
        limit(self._idle_bytes and self._idle_bytes + memory_bytes, self._limit_s)
        # Processor time, because a render takes longer on a busy machine. The signal repeats, because an exception in a
        # finalizer is not passed on.
        signal.setitimer(signal.ITIMER_PROF, self._limit_s, 0.05)

    def _work(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request. The signal interrupts only this method; see ``_on_alarm``."""
        template = self._templates.get(request["digest"]) or self._compile(request["digest"], request["source"])
        self._templates.move_to_end(request["digest"])
        match request.get("names"):
            case dict() as names:
                text = _render(template, names, self._max_text_length)
                return {"text": text, "runs": runs_of(text)}
            case list() as trials:
                return {"texts": [_try(template, names, self._max_text_length) for names in trials]}
        return {"variables": variables(template, request["source"]), "lines": template.debug_info}

    def _compile(self, digest: str, source: str) -> Template:
        template = self._templates[digest] = make_environment().from_string(source)
        if len(self._templates) > _MAX_KEPT_TEMPLATES:
            self._templates.popitem(last=False)
        return template

    def _line(self, digest: str, error: BaseException) -> int | None:
        """Return the line of the template where ``error`` was raised, in its render or its compilation."""
        line = None
        trace = error.__traceback__
        while trace is not None:
            frame = trace.tb_frame
            if frame.f_code.co_filename == _FILE_NAME and digest in self._templates:
                line = self._templates[digest].get_corresponding_lineno(trace.tb_lineno)
            elif isinstance(node := frame.f_locals.get("node"), nodes.Node):
                line = node.lineno
            elif isinstance(parser := frame.f_locals.get("self"), Parser):
                line = parser.stream.current.lineno
            trace = trace.tb_next
        return line


def _stopped(why: str, line: int | None) -> dict[str, Any]:
    return {"fault": "stopped", "why": why, "line": line}


def _reason(error: Exception) -> str:
    return (error.message if isinstance(error, TemplateSyntaxError) else str(error)) or type(error).__name__


def _end() -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    lift_limits()


def _on_alarm(_signal: int, frame: FrameType | None) -> None:
    """Raise in a render. Elsewhere the signal came too late, and an exception would not be handled."""
    while frame is not None:
        if frame.f_code is Program._work.__code__:
            raise _TimeUp
        frame = frame.f_back


def main() -> None:
    """Serve until the socket closes. Command line: the arguments of ``Program``."""
    signal.signal(signal.SIGPROF, _on_alarm)
    limit_s, limit_bytes, max_text_length = sys.argv[1:]
    serve(Program(float(limit_s), int(limit_bytes), int(max_text_length)).answer)
