"""Requests on their way from a caller to the lifecycle controller: priority, limits and cache salt are settled here."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Final, TypeAlias

from modelyard.errors import ModelUnloaded, RemoteLoop
from modelyard.protocol.forwarding import HERE, MAX_HOPS, Forwarding
from modelyard.protocol.requests import Embed, Rank, Submit, Tokenize
from modelyard.protocol.values import SequenceId
from modelyard.yard.directory import ModelDirectory
from modelyard.yard.requests.account import Account, MeteredRequest, Reserve
from modelyard.yard.requests.context import Caller, current_caller
from modelyard.yard.requests.model_names import ModelId, ResidencyName
from modelyard.yard.requests.one_shot import PendingResult
from modelyard.yard.requests.plain_excess import refuse_plain_excess
from modelyard.yard.requests.requests import Request, TokenizeRequest, WaitOptions
from modelyard.yard.requests.system_message import with_system
from modelyard.yard.requests.token_estimate import UNCOUNTED, estimate
from modelyard.yard.requests.token_stream import TokenStream
from modelyard.yard.residency.waiting import RequestId
from modelyard.yard.runtime.controller import LifecycleController

NO_SEQUENCE: Final = SequenceId(0)
"""The number of a request that is only made to estimate its tokens."""

OneShot: TypeAlias = Embed | Rank | Tokenize


class RequestSubmitter:
    """Queues the requests of the current caller. Use it on the yard's event loop."""

    def __init__(self, directory: ModelDirectory, controller: LifecycleController) -> None:
        self._directory = directory
        self._controller = controller
        # By which the server finds requests that it has passed on and that come back.
        self._server_id = secrets.token_hex(8)

    @contextmanager
    def submit(self, request: Request) -> Iterator[TokenStream]:
        """Queue a request for text; see ``Yard.submit``."""
        model = self._directory.router.route(request.model)
        submitted = self._submit_round(model, self._directory.residency_names[model], request, name=request.model)
        with submitted as (_, generation):
            yield generation

    @contextmanager
    def rounds(self, name: str | None) -> Iterator[Rounds]:
        """Return a context for the rounds of one answer; see ``Yard.rounds``."""
        model = self._directory.router.route(name)
        # The name stays valid for the answer when the model is reconfigured.
        residency_name = self._directory.residency_names[model]
        limits = current_caller().limits
        with nullcontext() if limits is None else limits.answer() as reserve:
            rounds = Rounds(
                partial(self._submit_round, model, residency_name, name=name, leaves_hold=True, reserve=reserve),
                partial(self._controller.release_hold, residency_name),
            )
            try:
                yield rounds
            finally:
                rounds.close()

    @contextmanager
    def _submit_round(
        self,
        model: ModelId,
        residency_name: ResidencyName,
        request: Request,
        *,
        name: str | None,
        leaves_hold: bool = False,
        continues: RequestId | None = None,
        reserve: Reserve | None = None,
    ) -> Iterator[tuple[RequestId, TokenStream]]:
        """Queue a request for text, and yield its number and the stream of its answer.

        Args:
            model: id of the model.
            residency_name: its name in the residency.
            request: the request.
            name: of the model, as it was asked for.
            leaves_hold, continues: see ``LifecycleController.submit``.
            reserve: reserves what it takes of the limits of its caller; None: it is an answer by itself.

        Raises:
            ModelUnloaded: the model was removed between two rounds.
            ContextLengthExceeded: the prompt is far too long.
            RemoteLoop: another server has the model, and the request came from there.
            InvalidRequest: it asks for an adapter that does not exist.
        """
        caller = current_caller()
        caller.check_answer(request.max_tokens)
        if residency_name not in self._controller.state.models:
            raise ModelUnloaded(model)
        request = replace(request, prompt=with_system(request.prompt, self._directory.system_of(model)))
        profile = self._controller.profiles.get(residency_name)
        refuse_plain_excess(request.prompt, None if profile is None else profile.context_length)
        wait, priority = self._wait_options(residency_name, request.wait_options, caller)
        forwarding = self._forwarding(model, caller, wait)
        adapters = self._directory.adapters_of(name, model, request.lora)

        def make_message(sequence: SequenceId) -> Submit:
            return replace(
                request.message(sequence, priority),
                forwarding=forwarding,
                cache_salt=caller.cache_salt,
                max_context=caller.max_context,
                max_answer=caller.max_tokens,
                adapters=adapters,
            )

        account = self._reserve(model, residency_name, caller, make_message, reserve)
        number, generation = self._controller.submit(
            residency_name, make_message, wait, caller.place_owner, leaves_hold=leaves_hold, continues=continues
        )
        generation.keeps_ids = request.wants_ids
        with self._until_left(caller, account, number, generation):
            yield number, generation

    @contextmanager
    def submit_one_shot(
        self, name: str | None, make_message: Callable[[SequenceId, int], OneShot], wait: WaitOptions
    ) -> Iterator[PendingResult]:
        """Queue a request that is answered at once; leaving the context early cancels it.

        Args:
            name: id or alias of its model; None means the default.
            make_message: makes the message for the engine, from the number and the priority of the request.
            wait: how the request asks to wait for its model.

        Raises:
            ModelNotFound, ModelRequired: there is no such model.
            RemoteLoop: another server has the model, and the request came from there.
        """
        caller = current_caller()
        model = self._directory.router.route(name)
        residency_name = self._directory.residency_names[model]
        wait, priority = self._wait_options(residency_name, wait, caller)
        forwarding = self._forwarding(model, caller, wait)

        def limited(sequence: SequenceId) -> OneShot:
            made = make_message(sequence, priority)
            if isinstance(made, Tokenize):
                return made
            return replace(made, max_context=caller.max_context, forwarding=forwarding)

        account = self._reserve(model, residency_name, caller, limited)
        number, pending = self._controller.submit_one_shot(residency_name, limited, wait, caller.place_owner)
        with self._until_left(caller, account, number, pending):
            yield pending

    def tokenization(self, request: TokenizeRequest) -> AbstractContextManager[PendingResult]:
        """Queue a request for tokens; see ``Yard.tokenize``."""
        system = self._directory.system_of(self._directory.router.route(request.model))
        request = replace(request, prompt=with_system(request.prompt, system))

        def make_message(sequence: SequenceId, _priority: int) -> Tokenize:
            return replace(request.message(sequence), cache_salt=current_caller().cache_salt)

        return self.submit_one_shot(request.model, make_message, request.wait_options)

    @contextmanager
    def _until_left(
        self, caller: Caller, account: Account | None, number: RequestId, result: MeteredRequest
    ) -> Iterator[None]:
        """Cancel a queued request if it is not over when the context is left."""
        result.attach_account(account)
        caller.requests.append(result)
        try:
            yield
        finally:
            if not result.is_over:
                self._controller.abandon(number)

    def _forwarding(self, model: ModelId, caller: Caller, wait: WaitOptions) -> Forwarding:
        """Return what goes along with a request of ``caller`` to ``model``.

        Raises:
            RemoteLoop: another server has the model, and the request has come through this one before, or through many.
        """
        if not self._directory.is_remote(model):
            return HERE
        if self._server_id in caller.hops or len(caller.hops) >= MAX_HOPS:
            raise RemoteLoop(model, len(caller.hops))
        request_id = "" if caller.origin is None else caller.origin.request_id
        hops = (*caller.hops, self._server_id)
        return Forwarding(hops, caller.session, request_id, wait.wait_s, wait.keep_alive_s)

    def _wait_options(
        self, residency_name: ResidencyName, asked: WaitOptions, caller: Caller
    ) -> tuple[WaitOptions, int]:
        """Return how a request waits, and its priority, which defaults to the model's."""
        own = self._controller.state.models[residency_name].policy.priority
        wait = caller.permitted_wait(asked, own)
        return wait, own if wait.priority is None else wait.priority

    def _reserve(
        self,
        model: ModelId,
        residency_name: ResidencyName,
        caller: Caller,
        make_message: Callable[[SequenceId], Submit | OneShot],
        reserve: Reserve | None = None,
    ) -> Account | None:
        """Reserve what a request takes of the caller's limits; return None where it has none.

        Args:
            model, residency_name, caller: of the request.
            make_message: makes the message for the engine.
            reserve: reserves it; None: as for an answer by itself.

        Raises:
            RateLimited, ConcurrencyLimited: the limits are exhausted.
        """
        if caller.limits is None:
            return None
        reserve = reserve or caller.limits.reserve
        if not caller.limits.counts_tokens:
            # Estimating the tokens of a long conversation takes time.
            return reserve(UNCOUNTED)
        profile = self._controller.profiles.get(residency_name)
        context = self._directory.configured(model).device.fixed_seq_len if profile is None else profile.context_length
        return reserve(estimate(make_message(NO_SEQUENCE), context))


class Rounds:
    """The rounds of one answer: requests to the same model, one after the other, between which it stays in use.

    Args:
        submit: queues a round; ``continues`` is the number of the round before it.
        release: ends the hold of a round.
    """

    def __init__(
        self,
        submit: Callable[..., AbstractContextManager[tuple[RequestId, TokenStream]]],
        release: Callable[[RequestId], None],
    ) -> None:
        self._submit, self._release = submit, release
        self._last: RequestId | None = None

    @contextmanager
    def submit(self, request: Request) -> Iterator[TokenStream]:
        """Queue the next round, as ``Yard.submit`` does. The round before must be over.

        A round after the first goes straight on where the model is still loaded. It is never refused because too many
        requests wait, or because its caller has reached its limits, and where the model made room for another
        meanwhile, it waits before the requests that have not begun.
        """
        if self._last is not None:
            # Its client has waited for the model already, and half an answer is of no use to it.
            request = replace(request, wait_options=replace(request.wait_options, wait_s=None))
        with self._submit(request, continues=self._last) as (number, generation):
            # It has taken the hold of the round before, and leaves one of its own.
            self._last = number
            yield generation

    def close(self) -> None:
        """End the hold of the last round."""
        if self._last is not None:
            self._release(self._last)
