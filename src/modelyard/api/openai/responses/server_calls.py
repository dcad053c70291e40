"""The items and events of the calls that this server runs in one response."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from modelyard.agent.events import RunningCall
from modelyard.agent.tools import ToolResult
from modelyard.api.openai.responses.event_writer import EventWriter
from modelyard.api.openai.responses.mcp_items import begun_call, end_call
from modelyard.api.openapi.answers_responses import McpCallItem, McpListToolsItem, OutputItem


class ServerCalls:
    """The calls of one response. Several may run at the same time, and end in any order.

    Args:
        events: of the response.
        output: the items of the response; those of calls are added.
        lists: the lists of tools with which the response begins.
        decided: ids of the calls that the client has decided about, which are those of the requests for it.
    """

    def __init__(
        self,
        events: EventWriter,
        output: list[OutputItem],
        lists: Sequence[McpListToolsItem],
        decided: Collection[str],
    ) -> None:
        self._events, self._output = events, output
        self._lists, self._decided = lists, frozenset(decided)
        # By the ids of the calls, with the index of their items.
        self._running: dict[str, tuple[int, McpCallItem]] = {}

    def lists(self) -> bytes:
        """Return the events of the lists of tools with which the response begins."""
        return b"".join(map(self._list, self._lists))

    def runs_at_once(self, running: RunningCall) -> bool:
        """Whether a call does not wait for an approval."""
        return not running.tool.needs_approval or running.call.id in self._decided

    def begin(self, running: RunningCall) -> bytes:
        """Return the events that begin a call; nothing if it has begun."""
        if running.call.id in self._running:
            return b""
        item = begun_call(running, running.call.id if running.call.id in self._decided else None)
        index = len(self._output)
        self._running[running.call.id] = index, item
        self._output.append(item)
        added = self._events.event("response.output_item.added", output_index=index, item=item)
        item_id, item["arguments"] = item["id"], running.call.arguments
        begun = self._events.event("response.mcp_call.in_progress", output_index=index, item_id=item_id)
        delta = self._events.delta(
            "response.mcp_call_arguments.delta", item["arguments"], output_index=index, item_id=item_id
        )
        done = self._events.event(
            "response.mcp_call_arguments.done", output_index=index, item_id=item_id, arguments=item["arguments"]
        )
        return added + begun + delta + done

    def end(self, running: RunningCall, result: ToolResult) -> bytes:
        """Return the events that end a call that has begun."""
        index, item = self._running[running.call.id]
        end_call(item, result)
        ended = self._events.event(f"response.mcp_call.{item['status']}", output_index=index, item_id=item["id"])
        return ended + self._events.event("response.output_item.done", output_index=index, item=item)

    def break_off(self) -> None:
        """Mark the calls that have no result as incomplete."""
        for _, item in self._running.values():
            if item["status"] == "in_progress":
                item["status"] = "incomplete"

    def _list(self, item: McpListToolsItem) -> bytes:
        index = len(self._output)
        self._output.append(item)
        added = self._events.event("response.output_item.added", output_index=index, item={**item, "tools": []})
        begun = self._events.event("response.mcp_list_tools.in_progress", output_index=index, item_id=item["id"])
        ended = self._events.event("response.mcp_list_tools.completed", output_index=index, item_id=item["id"])
        return added + begun + ended + self._events.event("response.output_item.done", output_index=index, item=item)
