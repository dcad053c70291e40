"""Random requests to a real server: each is answered or refused, whatever is in it."""

from __future__ import annotations

import functools
import random
import re
from typing import Final

from fuzz.case import Ending, Fault, Place
from fuzz.requests_of_api import random_request
from fuzz.server_process import Request, ServerProcess

# An error within a stream that has begun with status 200.
_SERVER_ERROR: Final = re.compile(rb'"(?:type|code)": ?"(?:server_error|internal_error|engine_error|api_error)"')
_SHOWN: Final = 700


@functools.cache
def server_of(place: Place) -> ServerProcess:
    """The server of all cases at ``place``; who ends the fuzzer closes it."""
    return ServerProcess(place.folder, place.weights)


def play_messages(seed: int, place: Place) -> Ending:
    """One to three requests at the same time."""
    rng = random.Random(f"messages {seed}")
    requests = [random_request(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
    server = server_of(place)
    try:
        replies = server.send(requests)
    except Fault as fault:
        raise Fault(f"{_shown(requests)}: {fault}") from fault
    for request, reply in zip(requests, replies, strict=True):
        if reply.status == 0 or reply.status >= 500 or _SERVER_ERROR.search(reply.body):
            answer = f"{reply.status} {reply.body[-400:].decode('utf-8', 'replace')}"
            raise Fault(f"{_shown([request])}: {answer} [{server.last_words()}]")
    return Ending("answered" if any(200 <= reply.status < 300 for reply in replies) else "refused")


def _shown(requests: list[Request]) -> str:
    return " and ".join(f"{request.path} {request.body[:_SHOWN].decode('utf-8', 'replace')}" for request in requests)
