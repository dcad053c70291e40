"""A session follows the changes of its server's tools."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from mcp.client.subscriptions import SubscriptionLost

from modelyard.mcp import session
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
