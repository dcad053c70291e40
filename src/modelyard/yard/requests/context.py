"""On whose behalf the yard is called: what they may use, see and have, and what they used.

It is ambient, as a task's identity is, and not an argument of every call: an endpoint that forgot to pass it on would
be open to all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from modelyard.config.key_rules import MAX_PRIORITY
from modelyard.errors import InsufficientMemory, InvalidRequest, ModelLoadFailed, ModelyardError
from modelyard.yard.requests.account import MeteredRequest, UsageLimits

if TYPE_CHECKING:
    from modelyard.config import Scope
    from modelyard.yard.requests.requests import WaitOptions

OTHER_MODELS: Final = "other models"
"""What models are called together that a caller may not know of."""

IN_THE_LOG: Final = "the server's log has the reason"
"""What a caller reads in place of a reason that it may not read."""

# A word of a text that may be the name of a model or of a file: without the quotes and stops around it.
_WORDS: Final = re.compile(r"[\w./:@+~-]*\w")


class Caller:
    """One call from outside.

    Attributes:
        models: ids that it may use and know of; None: all.
        scopes: what it may do; None: everything.
        owner: tells it from other callers, and is the same with each of its calls; None: all callers are one.
        shares_places: whether there are others, for whom it has to leave places.
        cache_salt: see ``Submit.cache_salt``.
        max_priority: the highest that its requests may have, unless their model's is higher.
        max_context, max_tokens: of each request; None: any.
        limits: of all its calls together; None: it has none.
        hidden: names and files of models that it must not know of, as far as it was told which there are.
        model: the id of the model that it last asked for; None: of none that there is.
        has_asked: whether it asked for a model at all.
        generations: what it had generated, embedded or tokenised.
    """

    __slots__ = (
        "cache_salt",
        "has_asked",
        "hidden",
        "limits",
        "max_context",
        "max_priority",
        "max_tokens",
        "model",
        "models",
        "owner",
        "requests",
        "scopes",
        "shares_places",
    )

    def __init__(self) -> None:
        self.models: frozenset[str] | None = None
        self.scopes: frozenset[Scope] | None = None
        self.owner: bytes | None = None
        self.shares_places = False
        self.cache_salt = ""
        self.max_priority = MAX_PRIORITY
        self.max_context: int | None = None
        self.max_tokens: int | None = None
        self.limits: UsageLimits | None = None
        self.hidden: frozenset[str] = frozenset()
        self.model: str | None = None
        self.has_asked = False
        self.requests: list[MeteredRequest] = []

    # Who may see what: all that leaves the server about models goes through these.

    def may(self, scope: Scope) -> bool:
        """Whether it may do what needs ``scope``."""
        return self.scopes is None or scope in self.scopes

    def may_use(self, model: str) -> bool:
        """Whether ``model``, an id, is among its models: it may use them, and know of no others."""
        return self.models is None or model in self.models

    def permitted_models(self, models: Iterable[str]) -> tuple[str, ...]:
        """Those of ``models`` that it may know of."""
        return tuple(filter(self.may_use, models))

    def visible_names(self, models: Iterable[str]) -> tuple[str, ...]:
        """Models as it may hear of them: those that it must not know of have one name together, at the end."""
        models = tuple(models)
        known = self.permitted_models(models)
        return known if len(known) == len(models) else (*known, OTHER_MODELS)

    def visible_error(self, error: ModelyardError) -> ModelyardError:
        """``error`` as it may read it: no names of models that it must not know of, and no reasons without ``read``."""
        match error:
            case InsufficientMemory() if self.permitted_models(error.pinned) != error.pinned:
                pinned = self.visible_names(error.pinned)
                return InsufficientMemory(error.model, error.needed_bytes, error.budget_bytes, pinned)
            case ModelLoadFailed() if (reason := self.visible_reason(error.reason)) != error.reason:
                return ModelLoadFailed(error.model, reason, error.retry_after_s)
        return error

    def visible_reason(self, text: str) -> str:
        """Why something is so, as it may read it: with ``read``, and where no hidden model is spoken of."""
        if not self.may("read"):
            return IN_THE_LOG
        words = {part for word in _WORDS.findall(text) for part in (word, word.rpartition("/")[2])}
        # A name of several words is looked for as it is.
        odd = (name for name in self.hidden if not _WORDS.fullmatch(name))
        names_others = not words.isdisjoint(self.hidden) or any(name in text for name in odd)
        return IN_THE_LOG if names_others else text

    # What it may have.

    def permitted_wait(self, urgency: WaitOptions, own_priority: int) -> WaitOptions:
        """How a request of it waits, where it wants to wait as ``urgency`` says.

        Args:
            urgency: as it was asked for.
            own_priority: of the model; to ask for more than is allowed does not make a request less urgent than one
                that asks for nothing.
        """
        if urgency.priority is not None:
            urgency = replace(urgency, priority=min(urgency.priority, max(self.max_priority, own_priority)))
        if urgency.keep_alive_s is not None and not self.may("admin"):
            urgency = replace(urgency, keep_alive_s=None)
        return urgency

    def check_answer(self, max_tokens: int | None) -> None:
        """Refuse a request for a longer answer than it may have.

        Raises:
            InvalidRequest: it is one.
        """
        if max_tokens is not None and self.max_tokens is not None and max_tokens > self.max_tokens:
            raise InvalidRequest(
                f"{max_tokens} tokens are wanted for the answer, and this API key may have {self.max_tokens} "
                "(max_tokens). Ask for fewer, or leave the number out.",
                "max_tokens",
            )

    @property
    def place_owner(self) -> bytes | None:
        """Whose places in a queue its requests take; None: nobody else's are bounded by them."""
        return self.owner if self.shares_places else None


CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
"""Who calls, in this task; None: a program that holds the yard itself, and may do everything."""


def current_caller() -> Caller:
    """Who calls, in this task; one that may do everything where nobody is told."""
    return CALLER.get() or Caller()
