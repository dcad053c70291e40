"""Asks the user about calls that wait for an approval, while the answer's stream goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from modelyard.cli.chat.client import Client
from modelyard.cli.chat.keyboard import Keyboard, ReadKey
from modelyard.cli.chat.tool_calls import ApprovalAsked, ToolStep
from modelyard.cli.chat.views import AnswerView
from modelyard.errors import ServerRefused

NO_KEYBOARD: Final = "nobody can approve it: standard input is no terminal"
BY_USER: Final = "the user denied it"


class Approver:
    """Asks about one call after the other. Close it.

    Args:
        client: takes the decisions to the server.
        view: shows the questions.
        note: prints a line where the view shows no questions.
        keyboard: where the user decides; None: there is none, and every call is denied.
    """

    def __init__(
        self,
        client: Client,
        view: AnswerView,
        note: Callable[[str], None],
        keyboard: Keyboard | None,
    ) -> None:
        self._client, self._view, self._note, self._keyboard = client, view, note, keyboard
        self._waiting: list[ApprovalAsked] = []
        self._listening = ExitStack()
        self._read: ReadKey | None = None

    @property
    def is_asking(self) -> bool:
        """Whether a call waits for the user."""
        return bool(self._waiting)

    def ask(self, asked: ApprovalAsked) -> None:
        """Ask about a call, after those that wait already."""
        if self._keyboard is None:
            self._note(f"{asked.name} is denied: {NO_KEYBOARD}.")
            self._decide(asked, is_approved=False, message=NO_KEYBOARD)
            return
        self._waiting.append(asked)
        if len(self._waiting) == 1:
            self._begin()

    def settle(self, step: ToolStep) -> None:
        """Take note of a call that waits no longer, whoever decided."""
        if step.phase in ("approved", "denied", "complete"):
            self._remove(step.id)

    def poll(self) -> None:
        """Read the keyboard, and decide."""
        if not self._waiting or self._read is None:
            return
        key, asked = self._read(), self._waiting[0]
        if key in ("y", "n", "a"):
            self._decide(asked, is_approved=key != "n", remembers=key == "a", message=BY_USER if key == "n" else "")
            self._remove(asked.call_id)

    def close(self) -> None:
        """Give the keyboard back."""
        if self._waiting:
            self._view.answered()
        self._waiting.clear()
        self._stop_listening()

    def _begin(self) -> None:
        """Show the first question, and only then take keys, so that none answers what nobody has seen."""
        asked = self._waiting[0]
        if not self._view.ask(asked.text(is_below_call=True), asked.question()):
            # A view without questions shows no calls either.
            self._note(f"{asked.text(is_below_call=False)}\n{asked.question()}")
        self._stop_listening()
        if self._keyboard is not None:
            self._read = self._listening.enter_context(self._keyboard.single_keys())

    def _remove(self, call_id: str) -> None:
        if not any(each.call_id == call_id for each in self._waiting):
            return
        was_first = self._waiting[0].call_id == call_id
        self._waiting = [each for each in self._waiting if each.call_id != call_id]
        if not self._waiting:
            self._view.answered()
            self._stop_listening()
        elif was_first:
            self._begin()

    def _stop_listening(self) -> None:
        self._read = None
        self._listening.close()

    def _decide(self, asked: ApprovalAsked, *, is_approved: bool, remembers: bool = False, message: str = "") -> None:
        try:
            self._client.decide(asked.approval_id, is_approved=is_approved, remembers=remembers, message=message)
        except ServerRefused as error:
            # It was decided elsewhere meanwhile, or the time is over: the stream has the outcome of the call.
            if error.server_code != "approval_not_found":
                raise
