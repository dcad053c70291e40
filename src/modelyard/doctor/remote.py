"""Checks whether the servers answer that have models of the configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from modelyard.doctor.finding import Finding

if TYPE_CHECKING:
    from modelyard.config import Config

TIMEOUT_S: Final = 5.0
MAX_AT_ONCE: Final = 16

_REFUSED: Final = (401, 403)


@dataclass(frozen=True, slots=True)
class RemoteFacts:
    """What a server answers that has a model.

    Attributes:
        model: id of the model.
        address: of the server.
        problem: why it does not answer; "" where it does.
        status: HTTP status of its list of models; None where it does not answer.
    """

    model: str
    address: str
    problem: str
    status: int | None


def remote_facts(config: Config, environment: Mapping[str, str] | None = None) -> tuple[RemoteFacts, ...]:
    """Ask all servers of all models that other servers have for their lists of models.

    Args:
        config: the configuration.
        environment: has the API keys; None: that of the process.
    """
    keys = os.environ if environment is None else environment
    asked = [
        (model.id, address, keys.get(model.api_key_env or "", "").strip())
        for model in config.models
        for address in model.remote
    ]
    if not asked:
        return ()
    with ThreadPoolExecutor(min(MAX_AT_ONCE, len(asked))) as pool:
        return tuple(pool.map(lambda each: _ask(*each), asked))


def check_remotes(facts: Sequence[RemoteFacts]) -> Iterator[Finding]:
    """Yield the outcome for each server."""
    for each in facts:
        label, known = f"Server of {each.model}", {"address": each.address, "status": each.status}
        if each.problem:
            advice = "Start it, or correct remote. Requests are refused until a server of the model answers."
            yield Finding("remote", label, f"{each.address}: {each.problem}", "note", advice, known)
        elif each.status in _REFUSED:
            advice = "Name the environment variable with its API key in api_key_env, and set it."
            yield Finding("remote", label, f"{each.address} refuses the API key", "note", advice, known)
        else:
            yield Finding("remote", label, f"{each.address} answers", facts=known)


def _ask(model: str, address: str, key: str) -> RemoteFacts:
    import httpx2

    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx2.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
            status = client.get(f"{address}/models", headers=headers).status_code
    except (httpx2.TransportError, httpx2.InvalidURL, OSError) as failure:
        return RemoteFacts(model, address, str(failure) or type(failure).__name__, None)
    return RemoteFacts(model, address, f"status {status}" if status >= 500 else "", status)
