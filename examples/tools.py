"""Functions as tools: a model calls them, and goes on with what they return.

    python examples/tools.py

MODELYARD_MAX_TOKENS bounds the answer. A model this small has to be told which function to call; larger ones choose.
"""

import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from modelyard import TextModelBuilder, ToolApproval

WEIGHTS = Path(__file__).parent.parent / ".weights"
MAX_TOKENS = int(os.environ.get("MODELYARD_MAX_TOKENS", "128"))


@dataclass
class Booking:
    """What the model reads as JSON."""

    room: str
    day: date
    guests: int


def book_room(
    room: Literal["garden", "tower"], day: date, guests: Annotated[int, Field(ge=1, le=8, description="How many.")] = 2
) -> Booking:
    """Book a room of the hotel.

    Args:
        room: Which one.
        day: Of the arrival.
    """
    return Booking(room, day, guests)


async def list_rooms() -> list[str]:
    """List the rooms that are free."""
    return ["garden", "tower"]


def approve(call: ToolApproval) -> bool | str:
    """Decide about a call before it runs; a text is the reason of a denial, which the model reads."""
    if call.arguments.get("room") == "tower" and call.tool == "book_room":
        return "The tower is closed for repairs."
    return True


builder = (
    TextModelBuilder(WEIGHTS / "smollm2-135m-instruct-q4_1.gguf")
    .with_tools([book_room, list_rooms])
    .with_tool_approval(approve)
    .with_max_tool_rounds(1)
)

with builder.build() as model:
    for tool in model.tools:
        print(f"{tool.name}: {tool.description}")
    for question, function in (
        ("Which rooms are free?", list_rooms),
        ("Book the garden room for 2026-05-01.", book_room),
    ):
        completion = model.send_chat_request(question, tool_choice=function, temperature=0, max_tokens=MAX_TOKENS)
        for call in completion.agentic_tool_calls or []:
            print(f"{call.name}({call.arguments}): {call.result}")
        print(completion.choices[0].message.content)
