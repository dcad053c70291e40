"""A request whose use of tokens is settled with its caller's limits, once and whoever reads its answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelyard.protocol.values import Usage
    from modelyard.yard.requests.context import Account


class Charged(ABC):
    """A request that may have an account.

    Attributes:
        account: hears of the tokens of its prompt, and once it is over of what it used, be its reader there or not.
    """

    account: Account | None = None

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether its last event has arrived."""

    def charge(self, account: Account | None) -> None:
        """Keep ``account``, or settle it where the request was refused at once."""
        self.account = account
        if self.is_over:
            self.settle(None)

    def settle(self, usage: Usage | None) -> None:
        """Settle the account, if it is not settled yet; None: the request has not begun."""
        account, self.account = self.account, None
        if account is not None:
            account.settle(usage)
