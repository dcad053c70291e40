"""A session follows the changes of its server's tools, and asks whether it lives."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import mcp_types as types
import pytest
from mcp.client.subscriptions import SubscriptionLost
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from modelyard.mcp import session
from modelyard.mcp.lost import SessionLost
from modelyard.mcp.session import Session


class Listening:
    """A client whose subscriptions end as they are told to: by themselves, or because the stream broke."""

    def __init__(self, *ends):
        self.ends, self.entered = list(ends), asyncio.Event()

    @asynccontextmanager
    async def listen(self, *, tools_list_changed):
        assert tools_list_changed
        self.entered.set()
        yield self._events()

    async def _events(self):
        if not self.ends:
            await asyncio.Event().wait()
        if (end := self.ends.pop(0)) is not None:
            raise end
        return
        yield


@pytest.mark.parametrize("end", [None, SubscriptionLost()], ids=["by itself", "lost"])
async def test_changes_between_two_subscriptions_are_not_missed(end, monkeypatch):
    monkeypatch.setattr(session, "_LISTEN_AGAIN_S", 0.05)
    client, changed = Listening(end), asyncio.Event()
    following = asyncio.create_task(Session("test", client, changed).follow_changes())
    async with asyncio.timeout(10):
        await client.entered.wait()
        client.entered.clear()
        # The tools are read again only once their changes are reported again: none is lost between the two.
        assert not changed.is_set()
        await client.entered.wait()
        await changed.wait()
    following.cancel()
    await asyncio.wait((following,), timeout=10)


def answering(list_tools):
    """A session with a server of the newer protocol, which is asked for its tools as a sign of life."""
    client = SimpleNamespace(
        session=SimpleNamespace(list_tools=list_tools), protocol_version=min(MODERN_PROTOCOL_VERSIONS)
    )
    return Session("test", client, asyncio.Event())


@pytest.mark.parametrize("answer", ["unreadable", "error", "list"])
async def test_any_answer_is_a_sign_of_life(answer):
    async def list_tools(**_):
        if answer == "error":
            raise MCPError(types.METHOD_NOT_FOUND, "Method not found")
        return types.ListToolsResult.model_validate({"tools": "none" if answer == "unreadable" else []})

    await answering(list_tools).check()


async def test_no_answer_is_the_end_of_a_session(monkeypatch):
    monkeypatch.setattr(session, "PING_S", 0.05)

    async def closed(**_):
        raise MCPError(types.CONNECTION_CLOSED, "Connection closed")

    async def silent(**_):
        await asyncio.Event().wait()

    for list_tools, why in ((closed, "Connection closed"), (silent, "it does not answer in time")):
        with pytest.raises(SessionLost, match=why):
            await answering(list_tools).check()
