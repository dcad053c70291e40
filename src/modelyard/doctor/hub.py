"""Whether the hub can be reached, and as whom: for people who want to know why a download does not work."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Literal

TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class HubFacts:
    """How the hub is from here.

    Attributes:
        endpoint: its URL.
        state: "offline" where offline mode forbids to ask it.
        detail: why it cannot be reached.
        has_token: whether a token is found; never the token itself.
    """

    endpoint: str
    state: Literal["reachable", "unreachable", "offline"]
    detail: str
    has_token: bool


def reach(token: str | bool | None = None, timeout_s: float = TIMEOUT_S) -> HubFacts:
    """Ask the hub for anything at all. Any answer counts: the one who answers is there.

    token is as ``Hub`` takes it.
    """
    # Imported here: it takes longer than the rest of Modelyard together.
    from huggingface_hub import get_token
    from huggingface_hub.constants import ENDPOINT, is_offline_mode

    has_token = bool(get_token()) if token is None else bool(token)
    if is_offline_mode():
        return HubFacts(ENDPOINT, "offline", "", has_token)
    outcome: Future[str] = Future()
    # On a thread of its own: a name that cannot be looked up is waited for longer than any timeout of the client says.
    threading.Thread(
        target=lambda: outcome.set_result(_ask(ENDPOINT, timeout_s)), name="reach the hub", daemon=True
    ).start()
    try:
        why_not = outcome.result(timeout_s)
    except TimeoutError:
        why_not = f"no answer within {timeout_s:.0f} s"
    return HubFacts(ENDPOINT, "unreachable" if why_not else "reachable", why_not, has_token)


def _ask(endpoint: str, timeout_s: float) -> str:
    """Why there is no answer; "" where there is one."""
    import httpx2

    try:
        # Without redirects: it is the way there that counts.
        with httpx2.Client(timeout=timeout_s, follow_redirects=False) as client:
            client.head(f"{endpoint}/api/models")
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as failure:
        return str(failure) or type(failure).__name__
    return ""
