"""On whose behalf the yard is called: what they may use, and what they used.

It is ambient, as a task's identity is, and not an argument of every call: an endpoint that forgot to pass it on would
be open to all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelyard.engine.messages import Usage
    from modelyard.yard.generation import Generation
    from modelyard.yard.inquiry import Inquiry


class Caller:
    """One call from outside.

    Attributes:
        models: ids that it may use and know of; None: all.
        model: the id of the model that it last asked for; None: of none that there is.
        has_asked: whether it asked for a model at all.
        generations: what it had generated, embedded or tokenised.
        on_paid: called with tokens that it used, as soon as that is known.
    """

    __slots__ = ("generations", "has_asked", "model", "models", "on_paid")

    def __init__(self) -> None:
        self.models: frozenset[str] | None = None
        self.model: str | None = None
        self.has_asked = False
        self.generations: list[Generation | Inquiry] = []
        self.on_paid: Callable[[int], None] | None = None

    def may_use(self, model: str) -> bool:
        """Whether ``model``, an id, is among its models."""
        return self.models is None or model in self.models

    def of(self, models: Iterable[str]) -> tuple[str, ...]:
        """Those of ``models`` that it may know of."""
        return tuple(filter(self.may_use, models))

    def charge(self, generation: Generation | Inquiry) -> None:
        """Let it know of its generation, and of what that uses."""

        def pay(usage: Usage) -> None:
            self.pay(usage.prompt_tokens + usage.completion_tokens)

        self.generations.append(generation)
        generation.on_used = pay

    def pay(self, tokens: int) -> None:
        """It has used so many tokens more. Also called when its answer is over: what it left was computed."""
        if self.on_paid is not None:
            self.on_paid(tokens)


CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
"""Who calls, in this task; None: a program that holds the yard itself, and may do everything."""
