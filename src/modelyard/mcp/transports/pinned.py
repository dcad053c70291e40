"""HTTP requests to one host at one address that was checked, for servers that requests name.

The name is resolved once, and all requests go to that address, so that a name that resolves to another address a moment
later (DNS rebinding) has no effect. Redirects are refused, and proxies of the environment are not used, because they
resolve names themselves.
"""

from __future__ import annotations

import httpx2

from modelyard.mcp.lost import SessionLost
from modelyard.system.public_addresses import Address, is_public, resolved


class PinnedTransport(httpx2.AsyncBaseTransport):
    """Sends requests to one host, and nowhere else.

    Args:
        url: of the host; requests to other origins are refused.
        address: of the host.
    """

    def __init__(self, url: httpx2.URL, address: Address) -> None:
        self._origin, self._address = (url.scheme, url.host, url.port), address
        self._inner = httpx2.AsyncHTTPTransport(trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request.

        Raises:
            SessionLost: it is for another host, or the server redirects it.
        """
        url = request.url
        if (url.scheme, url.host, url.port) != self._origin:
            raise SessionLost("it leads to another server")
        # The header Host was made of the URL before.
        request.url = url.copy_with(host=str(self._address))
        request.extensions = {**request.extensions, "sni_hostname": url.raw_host.decode("ascii")}
        try:
            response = await self._inner.handle_async_request(request)
        finally:
            request.url = url
        if 300 <= response.status_code < 400:
            await response.aclose()
            raise SessionLost("it redirects to another URL; name that one")
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


async def pinned_transport(url: str, *, may_be_private: bool) -> PinnedTransport:
    """Return a transport to the host of ``url``, at an address that may be connected to.

    Raises:
        SessionLost: its name is not known, or it has a private address.
    """
    parsed = httpx2.URL(url)
    try:
        addresses = await resolved(parsed.host, parsed.port)
    except OSError:
        raise SessionLost("its host is not known") from None
    if not may_be_private and not all(map(is_public, addresses)):
        raise SessionLost("it has a private address, to which this server does not connect for requests")
    return PinnedTransport(parsed, addresses[0])
