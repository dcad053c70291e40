"""Requests for text that follow one another in one answer, and keep the model between them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from modelyard.yard.requests.requests import Request
from modelyard.yard.requests.token_stream import TokenStream


class Rounds(Protocol):
    """The rounds of one answer: requests to the same model, one after the other."""

    def submit(self, request: Request) -> AbstractContextManager[TokenStream]:
        """Queue the next round, as ``Yard.submit`` does. The round before must be over.

        A round after the first goes straight on where the model is still loaded. It is never refused because too many
        requests wait, or because its caller has reached its limits, and where the model made room for another
        meanwhile, it waits in its old place.
        """
