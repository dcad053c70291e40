"""Images and sound from the web: within limits of time and size, and never from where a stranger must not look.

The name in a URL is resolved first, and the connection is made to the very address that was checked: a name that means
another host a moment later (DNS rebinding) gains nothing. Each redirect is checked in the same way. Proxies of the
environment are not used, since they would resolve names themselves.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from typing import Final

import httpx2

from modelyard.api.media.addresses import Address, is_public
from modelyard.api.media.kinds import MediaKind
from modelyard.errors import InvalidRequest

TIMEOUT_S: Final = 20.0
MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class Fetcher:
    """Fetches files from the web for clients of this server."""

    def __init__(self) -> None:
        self._tls: ssl.SSLContext | None = None

    async def fetch(self, url: str, param: str, kind: MediaKind, *, may_be_private: bool) -> bytes:
        """The file at ``url``.

        Args:
            url: with http or https.
            param: the field of the request that it stands in, for errors.
            kind: what it is to be.
            may_be_private: whether addresses of this machine and of its network are allowed.

        Raises:
            InvalidRequest: it cannot be had, is too large, took too long, or is where it must not be.
        """
        if self._tls is None:
            # Reads all certificates, which takes as long as several tokens.
            self._tls = await asyncio.to_thread(httpx2.create_ssl_context)
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                httpx2.AsyncClient(verify=self._tls, trust_env=False, timeout=TIMEOUT_S) as client,
            ):
                for _ in range(MAX_REDIRECTS + 1):
                    found = await _get(client, url, param, kind, may_be_private=may_be_private)
                    if isinstance(found, bytes):
                        return found
                    url = found
        except TimeoutError:
            raise InvalidRequest(
                f"The {kind.name} did not come within {TIMEOUT_S:.0f} s. Send it as a data URL.", param
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError, ValueError) as failure:
            raise InvalidRequest(
                f"The {kind.name} cannot be fetched ({type(failure).__name__}). Check the URL, or send it as a data "
                "URL.",
                param,
            ) from failure
        raise InvalidRequest(
            f"The URL leads on more than {MAX_REDIRECTS} times. Name the {kind.name}'s own URL.", param
        )


async def _get(
    client: httpx2.AsyncClient, url: str, param: str, kind: MediaKind, *, may_be_private: bool
) -> bytes | str:
    """The file, or the URL that it leads on to."""
    named = httpx2.URL(url)
    if named.scheme not in ("http", "https") or not named.host:
        raise InvalidRequest(
            f"The URL leads to something else than http or https. Name the {kind.name}'s own URL.", param
        )
    if named.userinfo:
        raise InvalidRequest(
            f"A URL with a user name or password is not fetched. Send the {kind.name} as a data URL.", param
        )
    address = await _address(named, param, kind, may_be_private=may_be_private)
    request = client.build_request(
        "GET",
        named.copy_with(host=str(address)),
        headers={"host": named.netloc.decode("ascii"), "accept": kind.accept, "accept-encoding": "identity"},
        extensions={"sni_hostname": named.raw_host.decode("ascii")},
    )
    response = await client.send(request, stream=True)
    try:
        if response.status_code in _REDIRECTS and "location" in response.headers:
            return str(named.join(response.headers["location"]))
        if response.status_code != 200:
            raise InvalidRequest(f"The URL answered {response.status_code}. Check it.", param)
        return await _body(response, param, kind)
    finally:
        await response.aclose()


async def _body(response: httpx2.Response, param: str, kind: MediaKind) -> bytes:
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > kind.most_bytes:
            raise InvalidRequest(kind.too_large, param)
    return bytes(body)


async def _address(url: httpx2.URL, param: str, kind: MediaKind, *, may_be_private: bool) -> Address:
    """The address of the host, where it may be looked at: of several all must be allowed."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except OSError:
        raise InvalidRequest("The host of the URL is not known. Check its name.", param) from None
    addresses = [ipaddress.ip_address(str(name[4][0]).partition("%")[0]) for name in found]
    if not addresses:
        raise InvalidRequest("The host of the URL has no address. Check its name.", param)
    if not may_be_private and not all(map(is_public, addresses)):
        raise InvalidRequest(
            "The URL leads to a private address, from which this server fetches nothing. Send the "
            f"{kind.name} as a data URL; whoever runs the server can set {kind.private_key} in [server].",
            param,
        )
    return addresses[0]
