"""One question: the answer goes to standard output, all else to standard error."""

from __future__ import annotations

import json
import select
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import fstat
from typing import Any, BinaryIO, Final

from modelyard.cli.chat.answering import Answer, receive
from modelyard.cli.chat.attachments import MAX_TEXT_BYTES, decoded
from modelyard.cli.chat.connection import Connection
from modelyard.cli.chat.conversation import Attachment, Conversation, Turn
from modelyard.cli.chat.loading import load_visibly
from modelyard.cli.chat.requests import answer_request
from modelyard.cli.chat.session import Switches, end_note
from modelyard.cli.chat.statistics import speed_line
from modelyard.cli.chat.terminal import Terminal
from modelyard.cli.chat.tool_calls import ToolStep
from modelyard.cli.chat.views import AnswerView
from modelyard.cli.chat.word_wrap import printable
from modelyard.cli.exit_codes import INTERRUPTED
from modelyard.errors import InvalidRequest

# Standard input that has nothing for so long is said to be waited for.
_SILENT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how the answer is to look.

    Attributes:
        schema: JSON schema that the answer follows; None: it is text.
        prints_json: whether one JSON object with the answer and its counts is printed.
    """

    text: str
    attachments: tuple[Attachment, ...] = ()
    system: str | None = None
    switches: Switches = field(default_factory=Switches)
    schema: Mapping[str, Any] | None = None
    prints_json: bool = False


def ask(connection: Connection, question: Question, terminal: Terminal) -> int:
    """Print the answer to a question, and return the exit code of the command: 0, or 130 where Ctrl-C ended it.

    Raises:
        ModelyardError: the question was not answered, or not with JSON that is whole.
    """
    client, switches = connection.client, question.switches
    model = load_visibly(client, client.model(connection.model), terminal.notes)
    if not model.can_chat:
        terminal.note(f"{model.id} is a base model: it has no chat template, so it continues the text.")
    turn = Turn("user", question.text, attachments=question.attachments)
    path, body = answer_request(
        Conversation(question.system, (turn,)),
        model.id,
        switches.settings,
        is_chat=model.can_chat,
        thinks=switches.thinks,
        schema=question.schema,
    )
    is_whole = question.prints_json or question.schema is not None
    view = AnswerView() if is_whole else terminal.view()
    note = ""
    try:
        answer = receive(
            client.stream(path, body),
            view,
            terminal.approver(client, view),
            shows_reasoning=not switches.hides_reasoning,
        )
        note = end_note(answer, body, model, "--max-tokens")
    finally:
        view.close(note)
    if switches.is_verbose and answer.timings:
        terminal.note(f"{model.id} {connection.where}; {speed_line(answer.timings)}")
    if answer.error is not None:
        raise answer.error
    if answer.was_stopped:
        return INTERRUPTED
    if question.schema is not None and answer.finish_reason == "length":
        raise InvalidRequest(
            f"The answer was cut off after {answer.usage.get('completion_tokens')} tokens, before its JSON was whole. "
            "Raise --max-tokens, or bound the texts and lists of the schema."
        )
    if is_whole:
        text = json.dumps(_facts(answer, model.id), ensure_ascii=False) if question.prints_json else answer.text
        print(printable(text) if terminal.is_terminal else text)  # noqa: T201
    elif note and not terminal.is_terminal:
        terminal.note(note)
    return 0


def _facts(answer: Answer, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "answer": answer.text,
        "reasoning": answer.reasoning or None,
        "thought_seconds": None if answer.thought_s is None else round(answer.thought_s, 3),
        "finish_reason": answer.finish_reason,
        "usage": dict(answer.usage),
        "timings": dict(answer.timings),
        "tool_calls": [_call(step) for step in answer.calls],
    }


def _call(step: ToolStep) -> dict[str, Any]:
    data = step.data
    return {
        "name": step.name,
        "arguments": data.get("arguments"),
        "result": data.get("content"),
        "is_error": data.get("is_error"),
        "duration_ms": data.get("duration_ms"),
    }


def piped_text(stream: BinaryIO, terminal: Terminal) -> str:
    """Return the text that another program writes to standard input, or that a file holds.

    Raises:
        InvalidRequest: it is too long, or no text.
    """
    if _is_pipe(stream):
        ready, _, _ = select.select([stream], [], [], _SILENT_S)
        if not ready:
            terminal.note("Waiting for the end of standard input (< /dev/null if there is none).")
    data = stream.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise InvalidRequest(f"Standard input has more than {MAX_TEXT_BYTES // 2**20} MiB, which is the limit.")
    return decoded(data, "Standard input")


def _is_pipe(stream: BinaryIO) -> bool:
    """Whether a stream is a pipe, which can be waited for."""
    if sys.platform == "win32":
        return False
    try:
        return stat.S_ISFIFO(fstat(stream.fileno()).st_mode)
    except OSError:  # a stream in memory
        return False


def joined(question: str | None, piped: str) -> str:
    """Return the question with the text of standard input below it, as other tools join them."""
    return "\n\n".join(part for part in (question or "", piped.strip("\n")) if part.strip())
