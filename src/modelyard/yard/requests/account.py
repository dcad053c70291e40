"""Accounts of requests: what each reserves of its caller's limits, and what it has used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from modelyard.protocol.events import Finished
    from modelyard.protocol.values import Usage
    from modelyard.yard.requests.timings import RequestTimings
    from modelyard.yard.requests.token_estimate import TokenEstimate


class Account(Protocol):
    """The reservation of one request, which is settled with what the request has used."""

    def record_prompt(self, prompt_tokens: int) -> None:
        """Correct the reserved tokens of the prompt to their real number. May be called again."""

    def record_usage(self, usage: Usage | None) -> None:
        """Settle the account of a request that is over; None: the request has not begun. Called once."""


Reserve: TypeAlias = "Callable[[TokenEstimate], Account]"
"""Reserves what a request takes at most."""


class UsageLimits(Protocol):
    """The limits of a caller, over all its requests.

    Attributes:
        counts_tokens: whether tokens are limited.
    """

    counts_tokens: bool

    def reserve(self, estimate: TokenEstimate) -> Account:
        """Reserve what a request takes at most.

        Raises:
            RateLimited, ConcurrencyLimited: the limits are exhausted; nothing was reserved.
        """

    def answer(self) -> AbstractContextManager[Reserve]:
        """Return a context of one answer of several rounds, which counts as one from the first to the last.

        Its value reserves what a round takes. That is never refused: half an answer is of no use, and what it takes
        beyond the limits delays the requests after it.

        Raises:
            RateLimited, ConcurrencyLimited: the limits are exhausted; nothing was counted.
        """


class MeteredRequest(ABC):
    """A request whose use of tokens is settled with its caller's limits.

    Attributes:
        account: receives the tokens of the prompt, and the usage once the request is over, whether or not its answer
            is read; None: the caller has no limits, or the account is settled.
        finished: reason and usage, once its last event has arrived; None before, and where it failed.
        times: the times of its stages.
        dropped: see ``protocol.events.Accepted``.
        error_code: code of the error that it failed with; None where it has not failed, or its error was raised.
        repairs: what its conversation needed before the chat template took it; see ``Accepted``.
    """

    account: Account | None = None
    finished: Finished | None
    times: RequestTimings
    dropped: tuple[str, ...] = ()
    error_code: str | None = None
    repairs: tuple[str, ...] = ()

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether its last event has arrived."""

    def attach_account(self, account: Account | None) -> None:
        """Keep ``account``, or settle it where the request was refused already."""
        self.account = account
        if self.is_over:
            self.record_usage(None)

    def record_usage(self, usage: Usage | None) -> None:
        """Settle the account, if it is not settled yet; None: the request has not begun."""
        account, self.account = self.account, None
        if account is not None:
            account.record_usage(usage)
