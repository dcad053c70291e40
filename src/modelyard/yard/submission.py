"""Requests on their way from a caller to the lifecycle controller: priority, limits and cache salt are settled here."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, TypeAlias, TypeVar

from modelyard.protocol.requests import Embed, Rank, Submit, Tokenize
from modelyard.protocol.values import SequenceId
from modelyard.yard.directory import ModelDirectory
from modelyard.yard.requests.account import Account, MeteredRequest
from modelyard.yard.requests.context import Caller, current_caller
from modelyard.yard.requests.one_shot import PendingResult
from modelyard.yard.requests.requests import Request, WaitOptions
from modelyard.yard.requests.token_estimate import UNCOUNTED, estimate
from modelyard.yard.requests.token_stream import TokenStream
from modelyard.yard.residency.state import RequestId
from modelyard.yard.runtime.controller import LifecycleController

NO_SEQUENCE: Final = SequenceId(0)
"""The number of a request that is only made to estimate its tokens."""

OneShot: TypeAlias = Embed | Rank | Tokenize

_Result = TypeVar("_Result", bound=MeteredRequest)


class RequestSubmitter:
    """Queues the requests of the current caller. Use it on the yard's event loop."""

    def __init__(self, directory: ModelDirectory, controller: LifecycleController) -> None:
        self._directory = directory
        self._controller = controller

    @contextmanager
    def submit(self, request: Request) -> Iterator[TokenStream]:
        """Queue a request for text; see ``Yard.submit``."""
        model, caller = self._directory.router.route(request.model), current_caller()
        caller.check_answer(request.max_tokens)
        wait, priority = self._wait_options(model, request.wait_options, caller)

        def message(sequence: SequenceId) -> Submit:
            return replace(
                request.message(sequence, priority),
                cache_salt=caller.cache_salt,
                max_context=caller.max_context,
                max_answer=caller.max_tokens,
            )

        account = self._reserve(model, caller, message)
        number, generation = self._controller.submit(
            self._directory.residency_names[model], message, wait, caller.place_owner
        )
        generation.keeps_ids = request.wants_ids
        yield from self._until_left(caller, account, number, generation)

    @contextmanager
    def submit_one_shot(
        self, model: str, message: Callable[[SequenceId, int], OneShot], wait: WaitOptions
    ) -> Iterator[PendingResult]:
        """Queue a request that is answered at once; leaving the context early cancels it.

        Args:
            model: its id.
            message: makes what the engine is sent, from the number and the priority of the request.
            wait: how the request asks to wait for its model.
        """
        caller = current_caller()
        wait, priority = self._wait_options(model, wait, caller)

        def limited(sequence: SequenceId) -> OneShot:
            made = message(sequence, priority)
            return made if isinstance(made, Tokenize) else replace(made, max_context=caller.max_context)

        account = self._reserve(model, caller, limited)
        number, pending = self._controller.submit_one_shot(
            self._directory.residency_names[model], limited, wait, caller.place_owner
        )
        yield from self._until_left(caller, account, number, pending)

    def _until_left(
        self, caller: Caller, account: Account | None, number: RequestId, result: _Result
    ) -> Generator[_Result, None, None]:
        """Yield the result of a queued request; cancel the request if it is not over when its context is left."""
        result.attach_account(account)
        caller.requests.append(result)
        try:
            yield result
        finally:
            if not result.is_over:
                self._controller.abandon(number)

    def _wait_options(self, model: str, asked: WaitOptions, caller: Caller) -> tuple[WaitOptions, int]:
        """Return how a request waits, and its priority, which defaults to the model's."""
        own = self._controller.state.models[self._directory.residency_names[model]].policy.priority
        wait = caller.permitted_wait(asked, own)
        return wait, own if wait.priority is None else wait.priority

    def _reserve(self, model: str, caller: Caller, message: Callable[[SequenceId], Submit | OneShot]) -> Account | None:
        """Reserve what a request takes of the caller's limits; return None where it has none.

        Raises:
            RateLimited, ConcurrencyLimited: the limits are exhausted.
        """
        if caller.limits is None:
            return None
        if not caller.limits.counts_tokens:
            # Estimating the tokens of a long conversation takes time.
            return caller.limits.reserve(UNCOUNTED)
        profile = self._controller.profiles.get(self._directory.residency_names[model])
        context = self._directory.configured(model).device.max_seq_len if profile is None else profile.context_length
        return caller.limits.reserve(estimate(message(NO_SEQUENCE), context))
