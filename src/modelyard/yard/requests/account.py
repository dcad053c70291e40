"""Accounts of requests: what each may use of its caller's limits, and has used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from modelyard.protocol.events import Finished
    from modelyard.protocol.values import Usage
    from modelyard.yard.requests.timings import RequestTimings
    from modelyard.yard.requests.token_estimate import TokenEstimate

if TYPE_CHECKING:
    from modelyard.protocol.values import Usage


class Account(Protocol):
    """What one request of a caller has, and gives back."""

    def record_prompt(self, prompt_tokens: int) -> None:
        """Its prompt has so many tokens. May be called again."""

    def record_usage(self, usage: Usage | None) -> None:
        """It is over, and has used that; None: it has not begun. Called once."""


class UsageLimits(Protocol):
    """How much a caller may have, together with its other calls.

    Attributes:
        counts_tokens: whether it matters how many tokens a request takes.
    """

    counts_tokens: bool

    def reserve(self, estimate: TokenEstimate) -> Account:
        """Begin a request that takes so many tokens at the most.

        Raises:
            RateLimited, ConcurrencyLimited: it may not have that now; nothing was taken.
        """


class MeteredRequest(ABC):
    """A request whose use of tokens is settled with its caller's limits.

    Attributes:
        account: is told of the tokens of the prompt, and of the usage once the request is over, whether or not its
            answer is read; None: the caller has no limits.
        finished: reason and usage, once its last event has arrived; None before, and where it failed.
        times: when what happened to it.
    """

    account: Account | None = None
    finished: Finished | None
    times: RequestTimings

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether its last event has arrived."""

    def attach_account(self, account: Account | None) -> None:
        """Keep ``account``, or settle it where the request was refused at once."""
        self.account = account
        if self.is_over:
            self.record_usage(None)

    def record_usage(self, usage: Usage | None) -> None:
        """Settle the account, if it is not settled yet; None: the request has not begun."""
        account, self.account = self.account, None
        if account is not None:
            account.record_usage(usage)
