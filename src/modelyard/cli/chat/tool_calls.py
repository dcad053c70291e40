"""Calls of the server's tools during an answer: as the stream reports them, and as lines of the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelyard.system.printable import printable, printable_lines

# Characters of arguments and results that a line shows. A call that is to be approved shows all its arguments.
_MAX_SHOWN: Final = 200

# The fields of a chunk, under the names of mistral.rs.
_PROGRESS: Final = "agentic_tool_call_progress"
_APPROVAL: Final = "agentic_tool_approval_required"


@dataclass(frozen=True, slots=True)
class ToolStep:
    """What has become of a call.

    Attributes:
        id: of the call.
        name: the tool, as the model calls it.
        phase: "calling", "running", "approved", "denied" or "complete".
        data: what the server reports with it.
    """

    id: str
    name: str
    phase: str
    data: Mapping[str, Any]

    def line(self) -> str:
        """Return the line that shows it; "": none does."""
        match self.phase:
            case "calling":
                return f"-> {self.name} {_cut(str(self.data.get('arguments', '')))}".rstrip()
            case "denied":
                return f"{self.name} is denied."
            case "complete":
                took = f"{self.data.get('duration_ms', 0) / 1000:.1f} s"
                failed = "failed after " if self.data.get("is_error") else ""
                return f"<- {self.name} {failed}{took}: {_cut(str(self.data.get('content', '')))}"
            case _:
                return ""

    def status(self) -> str:
        """Return what a running call says of its progress; "": nothing."""
        progress, total = self.data.get("progress"), self.data.get("total")
        done = "" if progress is None else f"{progress:g}" + ("" if total is None else f" of {total:g}")
        return " ".join(part for part in (done, _cut(str(self.data.get("message", "")))) if part)


@dataclass(frozen=True, slots=True)
class ApprovalAsked:
    """A call waits until somebody approves it.

    Attributes:
        approval_id: under which it is decided.
        call_id: of the call.
        name: the tool, as the model calls it.
        server: where the tool is.
        arguments: as the model wrote them.
    """

    approval_id: str
    call_id: str
    name: str
    server: str
    arguments: str

    def text(self, *, is_below_call: bool) -> str:
        """Return what the user reads before the decision, with the arguments unless the line of the call has them all.

        Args:
            is_below_call: whether the user sees the line of the call.
        """
        text = f"{self.name} of {printable(self.server)} needs your approval"
        if is_below_call and len(self.arguments) <= _MAX_SHOWN:
            return f"{text}."
        return f"{text}:\n{printable_lines(_indented(self.arguments))}"

    def question(self) -> str:
        """Return the question that keys answer."""
        return f"Run {self.name}? y: yes, n: no, a: yes, and each further time in this answer"


def tool_events(chunk: Mapping[str, Any]) -> list[ToolStep | ApprovalAsked]:
    """Return what a chunk of a stream says about calls of the server's tools."""
    events: list[ToolStep | ApprovalAsked] = []
    if isinstance(step := chunk.get(_PROGRESS), dict):
        events.append(ToolStep(str(step["id"]), str(step["tool_name"]), str(step["phase"]), step.get("data") or {}))
    if isinstance(asked := chunk.get(_APPROVAL), dict):
        tool = asked["tool"]
        events.append(
            ApprovalAsked(
                str(asked["approval_id"]),
                str(asked["id"]),
                str(tool["name"]),
                str(tool.get("server", "")),
                str(asked["arguments"]),
            )
        )
    return events


def _cut(text: str) -> str:
    return printable(" ".join(text.split()), _MAX_SHOWN)


def _indented(arguments: str) -> str:
    """Return arguments as indented JSON, so that long ones can be read; what is no JSON as it is."""
    try:
        return json.dumps(json.loads(arguments), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return arguments
