"""How a chat asks about calls of tools that need an approval: what the user reads, and what each key does."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from modelyard.cli.chat.approving import BY_USER, NO_KEYBOARD, Approver
from modelyard.cli.chat.keyboard import ReadKey
from modelyard.cli.chat.tool_calls import ApprovalAsked, ToolStep, tool_events
from modelyard.cli.chat.views import AnswerView
from modelyard.errors import ServerRefused


@dataclass
class Stage:
    """A user at a keyboard, and a server.

    Attributes:
        typed: keys that the user has pressed.
        shown, noted: questions of the view, and notes.
        decided: what the server was sent: the id, and whether the call runs, is remembered, and why not.
        refusal: the server's answer to a decision; None: it takes it.
        listens: whether single keys are read.
    """

    typed: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)
    decided: list[tuple[str, bool, bool, str]] = field(default_factory=list)
    refusal: ServerRefused | None = None
    listens: bool = False

    def decide(self, approval_id: str, *, is_approved: bool, remembers: bool, message: str) -> None:
        self.decided.append((approval_id, is_approved, remembers, message))
        if self.refusal is not None:
            raise self.refusal

    @contextlib.contextmanager
    def single_keys(self) -> Iterator[ReadKey]:
        self.typed.clear()
        self.listens = True
        yield lambda: self.typed.pop(0) if self.typed else ""
        self.listens = False

    def approver(self, *, has_keys: bool = True, view_asks: bool = True) -> Approver:
        shown = self.shown

        class View(AnswerView):
            def ask(self, text: str, question: str) -> bool:
                if view_asks:
                    shown.append(f"{text}\n{question}")
                return view_asks

        return Approver(self, View(), self.noted.append, self if has_keys else None)  # type: ignore[arg-type]


@pytest.fixture
def stage() -> Stage:
    return Stage()


def asked(number: int = 1, arguments: str = '{"path": "a.txt"}') -> ApprovalAsked:
    return ApprovalAsked(f"apr_{number}", f"call_{number}", "files_write", "files", arguments)


@pytest.mark.parametrize(
    ("key", "decision"),
    [("y", ("apr_1", True, False, "")), ("n", ("apr_1", False, False, BY_USER)), ("a", ("apr_1", True, True, ""))],
)
def test_a_key_decides(stage: Stage, key: str, decision: tuple[str, bool, bool, str]) -> None:
    approver = stage.approver()
    approver.ask(asked())
    assert "Run files_write? y: yes, n: no" in stage.shown[0]
    stage.typed += ["x", key]
    approver.poll()
    assert stage.decided == []
    approver.poll()
    assert stage.decided == [decision]
    assert not stage.listens


def test_what_was_typed_before_the_question_decides_nothing(stage: Stage) -> None:
    approver = stage.approver()
    stage.typed.append("y")
    approver.ask(asked())
    approver.poll()
    assert stage.decided == []


def test_calls_are_asked_about_one_after_the_other(stage: Stage) -> None:
    approver = stage.approver()
    approver.ask(asked(1))
    approver.ask(asked(2))
    assert len(stage.shown) == 1
    stage.typed += ["y", "y"]
    approver.poll()
    approver.poll()
    # The second key was typed before its question was shown.
    assert [each[0] for each in stage.decided] == ["apr_1"]
    stage.typed.append("n")
    approver.poll()
    assert [each[:2] for each in stage.decided] == [("apr_1", True), ("apr_2", False)]


def test_a_call_that_somebody_else_decides_is_asked_about_no_longer(stage: Stage) -> None:
    approver = stage.approver()
    approver.ask(asked())
    approver.settle(ToolStep("call_1", "files_write", "approved", {}))
    assert not approver.is_asking
    assert not stage.listens


def test_a_decision_that_comes_too_late_is_no_error(stage: Stage) -> None:
    stage.refusal = ServerRefused("gone", "approval_not_found", 404)
    approver = stage.approver()
    approver.ask(asked())
    stage.typed.append("y")
    approver.poll()
    assert not approver.is_asking


def test_an_end_of_the_answer_gives_the_keyboard_back(stage: Stage) -> None:
    approver = stage.approver()
    approver.ask(asked())
    approver.close()
    assert not stage.listens


def test_without_a_keyboard_a_call_is_denied(stage: Stage) -> None:
    stage.approver(has_keys=False).ask(asked())
    assert stage.decided == [("apr_1", False, False, NO_KEYBOARD)]
    assert "files_write is denied" in stage.noted[0]


def test_the_user_reads_all_arguments_and_no_control_characters(stage: Stage) -> None:
    text = f"{'a' * 5000}\u202e\x1b[2Jend"
    stage.approver().ask(asked(arguments=json.dumps({"text": text}, ensure_ascii=False)))
    assert "a" * 5000 in stage.shown[0]
    assert "end" in stage.shown[0]
    assert "\x1b" not in stage.shown[0]
    assert "\u202e" not in stage.shown[0]


def test_the_user_reads_the_arguments_where_the_view_shows_no_calls(stage: Stage) -> None:
    stage.approver(view_asks=False).ask(asked())
    (noted,) = stage.noted
    assert noted.startswith('files_write of files needs your approval:\n{\n  "path": "a.txt"\n}\nRun files_write?')


@pytest.mark.parametrize("arguments", ['{"a": ', "[" * 100_000, ""])
def test_arguments_that_are_no_json_are_shown_as_they_are(arguments: str) -> None:
    assert asked(arguments=arguments).text(is_below_call=False).endswith(f"needs your approval:\n{arguments}")


def test_a_chunk_without_calls_has_no_events() -> None:
    chunk: dict[str, Any] = {"choices": [{"delta": {"content": "Hi"}}]}
    assert tool_events(chunk) == []
