"""Fetches images and sound from the web, within limits of time and size, and only from public addresses.

The host of a URL is resolved first, and the connection is made to the address that was checked, so that a name that
resolves to another address a moment later (DNS rebinding) has no effect. Each redirect is checked in the same way.
Proxies from the environment are not used, because they resolve names themselves.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

import httpx2

from modelyard.api.media.kinds import MediaKind
from modelyard.errors import InvalidRequest
from modelyard.system.public_addresses import Address, is_public, resolved

TIMEOUT_S: Final = 20.0
MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class Fetcher:
    """Fetches files from the web for clients of the server."""

    def __init__(self) -> None:
        self._tls: ssl.SSLContext | None = None

    async def fetch(self, url: str, param: str, kind: MediaKind, *, may_be_private: bool) -> bytes:
        """Return the file at ``url``.

        Args:
            url: an http or https URL.
            param: the field of the request that holds the URL, for errors.
            kind: the kind of the file.
            may_be_private: whether addresses of this machine and its network are allowed.

        Raises:
            InvalidRequest: the file cannot be fetched in time, is too large, or is at an address that is not allowed.
        """
        if self._tls is None:
            # On a thread, because reading all certificates blocks as long as several tokens take.
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
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as failure:
            raise InvalidRequest(
                f"The {kind.name} cannot be fetched ({type(failure).__name__}). Check the URL, or send it as a data "
                "URL.",
                param,
            ) from failure
        raise InvalidRequest(
            f"The URL redirects more than {MAX_REDIRECTS} times. Send the final URL of the {kind.name}.", param
        )


async def _get(
    client: httpx2.AsyncClient, url: str, param: str, kind: MediaKind, *, may_be_private: bool
) -> bytes | str:
    """Return the file, or the URL of a redirect."""
    parsed = httpx2.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidRequest(
            f"The URL, or a redirect of it, is neither http nor https. Send the final URL of the {kind.name}.", param
        )
    if parsed.userinfo:
        raise InvalidRequest(
            f"A URL with a user name or password is not fetched. Send the {kind.name} as a data URL.", param
        )
    address = await _address(parsed, param, kind, may_be_private=may_be_private)
    request = client.build_request(
        "GET",
        parsed.copy_with(host=str(address)),
        headers={"host": parsed.netloc.decode("ascii"), "accept": kind.accept, "accept-encoding": "identity"},
        extensions={"sni_hostname": parsed.raw_host.decode("ascii")},
    )
    response = await client.send(request, stream=True)
    try:
        if response.status_code in _REDIRECTS and "location" in response.headers:
            return str(parsed.join(response.headers["location"]))
        if response.status_code != 200:
            raise InvalidRequest(f"The URL answered {response.status_code}. Check it.", param)
        return await _body(response, param, kind)
    finally:
        await response.aclose()


async def _body(response: httpx2.Response, param: str, kind: MediaKind) -> bytes:
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > kind.max_bytes:
            raise InvalidRequest(kind.too_large, param)
    return bytes(body)


async def _address(url: httpx2.URL, param: str, kind: MediaKind, *, may_be_private: bool) -> Address:
    """Return the address of the host. If it has several addresses, all must be allowed."""
    try:
        addresses = await resolved(url.host, url.port)
    except OSError:
        raise InvalidRequest("The host of the URL is not known. Check its name.", param) from None
    if not may_be_private and not all(map(is_public, addresses)):
        raise InvalidRequest(
            "The URL leads to a private address, from which this server fetches nothing. Send the "
            f"{kind.name} as a data URL, or set {kind.private_key} in [server].",
            param,
        )
    return addresses[0]
