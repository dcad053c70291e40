"""The caller of the yard: what it may use and see, its limits, and what it has used.

The caller is in a ContextVar and not an argument of every call: an endpoint that does not pass it on would be open to
all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from modelyard.config.key_rules import MAX_PRIORITY
from modelyard.errors import InsufficientMemory, InvalidRequest, ModelLoadFailed, ModelyardError
from modelyard.yard.requests.account import MeteredRequest, UsageLimits

if TYPE_CHECKING:
    from modelyard.config import Scope
    from modelyard.yard.requests.requests import WaitOptions

OTHER_MODELS: Final = "other models"
"""Stands for all models that are hidden from a caller."""

IN_THE_LOG: Final = "the server's log has the reason"
"""Stands for a reason that a caller may not read."""

# A word that may be the name of a model or of a file, without quotes and full stops around it.
_WORDS: Final = re.compile(r"[\w./:@+~-]*\w")


@dataclass(slots=True)
class RequestOrigin:
    """Where the requests of a caller come from, for those who look at what the server does.

    Attributes:
        request_id: of the HTTP request.
        path: of the HTTP request, without its query.
        key: name of its API key; None: it has none.
        is_streamed: whether its answer is sent while it is computed.
        looks_on: whether it only looks at other requests, and is not one of those to be seen.
    """

    request_id: str
    path: str
    key: str | None = None
    is_streamed: bool = False
    looks_on: bool = False


class Caller:
    """The caller of one request from outside: its rights and limits, and what it asked for.

    Attributes:
        models: ids of the models that it may use and see; None: all.
        mcp_servers: names of the MCP servers whose tools its requests may use; None: all.
        scopes: what it may do; None: everything.
        owner: identifies it among all callers, over all its calls; None: callers are not told apart.
        shares_places: whether other owners share the places in queues with it.
        cache_salt: see ``Submit.cache_salt``.
        max_priority: the highest priority of its requests, unless their model's is higher.
        max_context: bound of the tokens of a prompt and its answer; None: none.
        max_tokens: bound of the tokens of an answer; None: none.
        limits: of all its calls together; None: it has none.
        hidden: names and files of the models that are hidden from it; set by ``Router.describe_models_to``.
        model: the id of the model that it last asked for; None: no existing one.
        has_asked: whether it has asked for a model.
        requests: its requests for text, vectors, scores and tokens.
        origin: where these come from; None: a program that holds the yard itself.
        hops: ids of the servers that passed its request on; see ``protocol.forwarding``.
        session: as it names the conversation; "": it does not.
    """

    __slots__ = (
        "cache_salt",
        "has_asked",
        "hidden",
        "hops",
        "limits",
        "max_context",
        "max_priority",
        "max_tokens",
        "mcp_servers",
        "model",
        "models",
        "origin",
        "owner",
        "requests",
        "scopes",
        "session",
        "shares_places",
    )

    def __init__(self) -> None:
        self.models: frozenset[str] | None = None
        self.mcp_servers: frozenset[str] | None = None
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
        self.origin: RequestOrigin | None = None
        self.hops: tuple[str, ...] = ()
        self.session = ""

    def detached(self) -> Caller:
        """Return this caller for work that goes on after its request: what that asks for is not counted here."""
        other = copy(self)
        other.requests = []
        return other

    # What it may see. Everything about models that leaves the server goes through these.

    def may(self, scope: Scope) -> bool:
        """Whether it may do what needs ``scope``."""
        return self.scopes is None or scope in self.scopes

    def may_use(self, model: str) -> bool:
        """Whether it may use and see ``model``, an id."""
        return self.models is None or model in self.models

    def permitted_models(self, models: Iterable[str]) -> tuple[str, ...]:
        """Return the ids in ``models`` that it may see."""
        return tuple(filter(self.may_use, models))

    def visible_names(self, models: Iterable[str]) -> tuple[str, ...]:
        """Return the ids in ``models`` that it may see, followed by OTHER_MODELS where some are hidden."""
        models = tuple(models)
        permitted = self.permitted_models(models)
        return permitted if len(permitted) == len(models) else (*permitted, OTHER_MODELS)

    def visible_error(self, error: ModelyardError) -> ModelyardError:
        """Return ``error`` as it may read it: without hidden models, and without reasons unless it may ``read``."""
        match error:
            case InsufficientMemory() if self.permitted_models(error.pinned) != error.pinned:
                pinned = self.visible_names(error.pinned)
                return InsufficientMemory(error.model, error.needed_bytes, error.budget_bytes, pinned, error.device)
            case ModelLoadFailed() if (reason := self.visible_reason(error.reason)) != error.reason:
                return ModelLoadFailed(error.model, reason, error.retry_after_s)
        return error

    def visible_reason(self, text: str) -> str:
        """Return the reason ``text``; IN_THE_LOG where it may not ``read``, or the text names a hidden model."""
        if not self.may("read"):
            return IN_THE_LOG
        words = {part for word in _WORDS.findall(text) for part in (word, word.rpartition("/")[2])}
        # A name that is not one word is searched for in the whole text.
        phrases = (name for name in self.hidden if not _WORDS.fullmatch(name))
        names_hidden = not words.isdisjoint(self.hidden) or any(name in text for name in phrases)
        return IN_THE_LOG if names_hidden else text

    # Its limits.

    def permitted_wait(self, wait_options: WaitOptions, own_priority: int) -> WaitOptions:
        """Return how a request waits that asks to wait as ``wait_options``.

        Args:
            wait_options: as the request asks for it.
            own_priority: of the model. A request for more than is allowed gets at least this priority, as one that
                names none does.
        """
        if wait_options.priority is not None:
            wait_options = replace(
                wait_options, priority=min(wait_options.priority, max(self.max_priority, own_priority))
            )
        if wait_options.keep_alive_s is not None and not self.may("admin"):
            wait_options = replace(wait_options, keep_alive_s=None)
        return wait_options

    def check_answer(self, max_tokens: int | None) -> None:
        """Refuse a request for a longer answer than ``self.max_tokens``.

        Raises:
            InvalidRequest: ``max_tokens`` is greater.
        """
        if max_tokens is not None and self.max_tokens is not None and max_tokens > self.max_tokens:
            raise InvalidRequest(
                f"{max_tokens} tokens are wanted for the answer, and this API key may have {self.max_tokens} "
                "(max_tokens). Ask for fewer, or leave the number out.",
                "max_tokens",
            )

    @property
    def place_owner(self) -> bytes | None:
        """The owner whose places in a queue its requests take; None: places are not shared out."""
        return self.owner if self.shares_places else None


CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
"""The caller, in this task; None: a program that holds the yard itself, and may do everything."""


def current_caller() -> Caller:
    """Return the caller in this task; without one, a new caller that may do everything."""
    return CALLER.get() or Caller()
