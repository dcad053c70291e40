"""Checks whether the hub is reachable, and whether there is a token, to find out why a download fails."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Literal

TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class HubFacts:
    """The connectivity of the hub.

    Attributes:
        endpoint: its URL.
        state: "offline" where offline mode forbids requests to it.
        detail: why it is unreachable; "" where it is not.
        has_token: whether there is a token, which itself is not stored.
    """

    endpoint: str
    state: Literal["reachable", "unreachable", "offline"]
    detail: str
    has_token: bool


def check_connectivity(token: str | bool | None = None, timeout_s: float = TIMEOUT_S) -> HubFacts:
    """Send a request to the hub. It is reachable when it answers, with any status.

    Args:
        token: as ``Hub`` takes it.
        timeout_s: longest wait for the answer.
    """
    # Imported here: it takes longer than the rest of Modelyard together.
    from huggingface_hub import get_token
    from huggingface_hub.constants import ENDPOINT, is_offline_mode

    has_token = bool(get_token()) if token is None else bool(token)
    if is_offline_mode():
        return HubFacts(ENDPOINT, "offline", "", has_token)
    outcome: Future[str] = Future()
    # On a thread of its own, because a DNS lookup that fails takes longer than the timeout of the client.
    threading.Thread(
        target=lambda: outcome.set_result(_request(ENDPOINT, timeout_s)), name="reach the hub", daemon=True
    ).start()
    try:
        why_not = outcome.result(timeout_s)
    except TimeoutError:
        why_not = f"no answer within {timeout_s:.0f} s"
    return HubFacts(ENDPOINT, "unreachable" if why_not else "reachable", why_not, has_token)


def _request(endpoint: str, timeout_s: float) -> str:
    """Send a request; return why there is no answer, or "" where there is one."""
    import httpx2

    try:
        # A redirect is an answer, and is not followed.
        with httpx2.Client(timeout=timeout_s, follow_redirects=False) as client:
            client.head(f"{endpoint}/api/models")
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as failure:
        return str(failure) or type(failure).__name__
    return ""
