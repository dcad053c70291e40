"""An engine whose model another server has: the messages of engines in, requests over HTTP out, and events back.

Everything runs on the event loop of the yard, where each request is a task. Nothing is loaded: the engine serves at
once, whether its servers answer or not, and probes those that do not.

Hot path: ``_Exchange._receive`` runs once a piece of bytes; see docs/performance.md for what it adds to a token.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import orjson

from modelyard.errors import ModelyardError, RemoteFailed, RemoteUnavailable, UnsupportedOperation
from modelyard.protocol.delta_text import MARKED
from modelyard.protocol.events import (
    Accepted,
    Cancelled,
    Embedded,
    Ending,
    Failed,
    Finished,
    Loaded,
    Publish,
    Ranked,
    Returned,
    Started,
    Stopped,
    Token,
)
from modelyard.protocol.messages import Message, Resume
from modelyard.protocol.model_info import ModelProfile
from modelyard.protocol.prompts import media_of
from modelyard.protocol.requests import Cancel, Embed, Rank, Stop, Submit, Tokenize
from modelyard.protocol.values import SequenceId, Usage
from modelyard.remote.addresses import Address, choose, retry_after_s
from modelyard.remote.answers import NoAnswer, TextAnswer, embeddings_of, scores_of
from modelyard.remote.bodies import RemoteRequest, conversation_key, embedding_request, rank_request, text_request
from modelyard.remote.connection import RemoteConnection, Unanswered, connect, json_body
from modelyard.remote.event_stream import EventStreamReader, EventTooLarge
from modelyard.remote.settings import RemoteSettings

logger = logging.getLogger(__name__)

# How long the end of a body is waited for behind the end of the answer, so that the connection can be used again.
_REST_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class AddressStatus:
    """What is known of one address of a model.

    Attributes:
        url: its base URL.
        is_up: whether it answered when it was last asked.
        running: requests of this server that are with it.
        problem: why it does not answer; "" where it does.
        retry_in_s: seconds until it is tried again; None where it answers.
    """

    url: str
    is_up: bool
    running: int
    problem: str
    retry_in_s: float | None


class RemoteEngine:
    """Serves one model from other servers; see ``yard.runtime.interfaces.EngineHandle``.

    Args:
        settings: which servers have the model.
        publish: takes the events.
        connection: to the servers.
        clock: seconds, as ``time.monotonic``.
    """

    def __init__(
        self,
        settings: RemoteSettings,
        publish: Publish,
        connection: RemoteConnection,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._publish, self._connection, self._clock = settings, publish, connection, clock
        self._addresses = [Address(url) for url in settings.addresses]
        self._loop = asyncio.get_running_loop()
        self._exchanges: dict[SequenceId, tuple[_Exchange, asyncio.Task[Ending]]] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._ending: asyncio.Task[None] | None = None
        self._has_ended = False

    # The interface of engines

    def start(self) -> None:
        """Serve at once, and look which servers answer."""
        profile = ModelProfile(
            context_length=None,
            quantization="",
            size_bytes=0,
            fingerprint="remote",
            can_chat=True,
            sampling=self._settings.sampling,
        )
        for address in self._addresses:
            self._watch(address)
        self._publish([Loaded(profile)])

    def send(self, message: Message) -> None:
        """Take a message. What concerns memory and devices has no effect."""
        match message:
            case Submit() | Embed() | Rank():
                self._begin(message)
            case Tokenize(sequence):
                self._publish([Failed(sequence, self._no_tokens())])
            case Resume():
                # Never sent: sequences of this engine are not suspended.
                self._publish([Failed(message.sequence, RemoteFailed(self._settings.name, "it suspends no answers"))])
            case Cancel(sequence):
                if (exchange := self._exchanges.get(sequence)) is not None:
                    exchange[1].cancel()
            case Stop(suspend):
                self._stop(suspend=suspend)

    def join(self, timeout_s: float) -> bool:
        """Return whether it has ended; it does so with its last event, without a thread to wait for."""
        del timeout_s
        return self._has_ended

    def status(self) -> tuple[AddressStatus, ...]:
        """Return what is known of each address."""
        now = self._clock()
        return tuple(
            AddressStatus(
                address.url,
                address.is_up,
                address.running,
                address.problem,
                None if address.is_up else max(0.0, address.probe_at - now),
            )
            for address in self._addresses
        )

    # Requests

    def _begin(self, request: Submit | Embed | Rank) -> None:
        exchange = _Exchange(request, self._settings, self._connection, self._publish)
        task = self._loop.create_task(self._answer(exchange), name=f"ask for {self._settings.name}")
        self._exchanges[request.sequence] = exchange, task
        # A task that is cancelled before its first step runs none of its code, so its end is published from here.
        task.add_done_callback(lambda done: self._conclude(exchange, done))

    def _conclude(self, exchange: _Exchange, done: asyncio.Task[Ending]) -> None:
        sequence = exchange.request.sequence
        del self._exchanges[sequence]
        if done.cancelled():
            ending: Ending = Returned(sequence) if exchange.is_returned else Cancelled(sequence, exchange.used)
        elif (failure := done.exception()) is not None:
            logger.error("A request to a server of %s failed", self._settings.name, exc_info=failure)
            ending = Failed(sequence, RemoteFailed(self._settings.name, "an internal error; see the log"))
        else:
            ending = done.result()
        self._publish([ending])

    async def _answer(self, exchange: _Exchange) -> Ending:
        """Have one server after the other answer a request, until one does."""
        sequence = exchange.request.sequence
        try:
            await exchange.prepare()
        except ModelyardError as refused:
            return Failed(sequence, refused)
        key = conversation_key(exchange.request, exchange.request.forwarding.session)
        tried: set[str] = set()
        dropped: set[str] = set()
        error: ModelyardError | None = None
        while (address := choose(self._addresses, key, self._clock(), tried)) is not None:
            tried.add(address.url)
            address.running += 1
            try:
                ending = await exchange.attempt(address.url)
            except Unanswered as unanswered:
                error = unanswered.error
                if unanswered.was_dropped and address.url not in dropped:
                    # The server may have closed an idle connection at the moment when it was used.
                    dropped.add(address.url)
                    tried.discard(address.url)
                    continue
                self._note(address, unanswered)
                if exchange.has_begun:
                    return Failed(sequence, error, exchange.used)
            except ModelyardError as refused:
                return Failed(sequence, refused, exchange.used)
            else:
                address.answer()
                return ending
            finally:
                address.running -= 1
        return Failed(sequence, error or self._unavailable())

    def _note(self, address: Address, unanswered: Unanswered) -> None:
        if unanswered.is_down:
            self._fail(address, str(unanswered.error))
        elif unanswered.busy_s is not None:
            address.be_busy(unanswered.busy_s, self._clock())

    def _unavailable(self) -> RemoteUnavailable:
        problems = dict.fromkeys(address.problem for address in self._addresses if address.problem)
        seconds = retry_after_s(self._addresses, self._clock())
        return RemoteUnavailable(self._settings.name, "; ".join(problems) or "all are busy", seconds)

    def _no_tokens(self) -> UnsupportedOperation:
        return UnsupportedOperation(
            f"The tokens of '{self._settings.name}' are not known here: another server has the model. Ask that server.",
            "model",
        )

    # Servers that do not answer

    def _fail(self, address: Address, problem: str) -> None:
        if address.is_up:
            logger.warning(
                "%s of %s does not answer (%s): it is left out until it does", address.url, self._settings.name, problem
            )
        address.fail(problem, self._clock())
        self._watch(address)

    def _watch(self, address: Address) -> None:
        """Look until an address answers, unless that is being done."""
        if address.url in self._probes or self._ending is not None:
            return
        probe = self._probes[address.url] = self._loop.create_task(
            self._probe(address), name=f"look at {self._settings.name}"
        )
        probe.add_done_callback(lambda _: self._probes.pop(address.url, None))

    async def _probe(self, address: Address) -> None:
        while True:
            if not address.is_up:
                await asyncio.sleep(max(0.0, address.probe_at - self._clock()))
            problem = await self._connection.probe(address.url)
            if not problem:
                if not address.is_up:
                    logger.info("%s of %s answers again", address.url, self._settings.name)
                address.answer()
                return
            if address.is_up:
                logger.warning("%s of %s does not answer: %s", address.url, self._settings.name, problem)
            address.fail(problem, self._clock())

    # The end

    def _stop(self, *, suspend: bool) -> None:
        for exchange, task in list(self._exchanges.values()):
            # Answers that have begun go on to their end: there is no state that another engine could go on from.
            exchange.is_returned = suspend and not exchange.has_begun
            if exchange.is_returned or not suspend:
                task.cancel()
        if self._ending is None:
            self._ending = self._loop.create_task(self._end(), name=f"end of {self._settings.name}")

    async def _end(self) -> None:
        for probe in list(self._probes.values()):
            probe.cancel()
        while self._exchanges:
            await asyncio.wait([task for _, task in self._exchanges.values()])
        await self._connection.close()
        self._has_ended = True
        self._publish([Stopped()])


class _Exchange:
    """One request, and the answers of the servers that it is sent to.

    Attributes:
        request: the request.
        has_begun: whether a part of the answer was published, so that no other server can answer.
        is_returned: whether it was taken back to be sent again.
    """

    def __init__(
        self, request: Submit | Embed | Rank, settings: RemoteSettings, connection: RemoteConnection, publish: Publish
    ) -> None:
        self.request = request
        self.has_begun = self.is_returned = False
        self._settings, self._connection, self._publish = settings, connection, publish
        self._answer: TextAnswer | None = None
        self._is_accepted = False
        self._remote: RemoteRequest | None = None
        self._body = b""

    @property
    def used(self) -> Usage | None:
        """What it has used so far; None where nothing of an answer has arrived."""
        return self._answer.used if self._answer is not None and self.has_begun else None

    async def prepare(self) -> None:
        """Write the body of the request.

        Raises:
            UnsupportedOperation: no server can be asked for that.
        """
        request = self.request
        if isinstance(request, Submit) and media_of(request.prompt):
            # On another thread, because encoding an image takes milliseconds.
            await asyncio.to_thread(self._write)
        else:
            self._write()
        self._publish([Started(request.sequence)])

    def _write(self) -> None:
        request, model = self.request, self._settings.model
        match request:
            case Submit():
                self._remote = text_request(request, model, self._settings.sampling)
            case Embed():
                self._remote = embedding_request(request, model)
            case Rank():
                self._remote = rank_request(request, model)
        try:
            self._body = orjson.dumps(self._remote.body)
        except TypeError:
            # A lone surrogate, or a number of more than 64 bits: Python's own encoder writes both.
            self._body = json.dumps(self._remote.body).encode()

    async def attempt(self, url: str) -> Ending:
        """Have one server answer.

        Raises:
            Unanswered: it does not. Where ``has_begun`` is set, the answer broke in the middle.
            RemoteRefused: it refuses the request as others would.
        """
        assert self._remote is not None
        async with self._connection.post(url, self._remote.path, self._body, self.request.forwarding) as response:
            try:
                if isinstance(self.request, Submit):
                    return await self._text(response, self._remote)
                return self._result(await json_body(response))
            except (NoAnswer, EventTooLarge) as odd:
                raise Unanswered(RemoteFailed(self._settings.name, f"it sent {odd}")) from odd
            except ValueError as odd:
                raise Unanswered(RemoteFailed(self._settings.name, "it sent what is not JSON")) from odd

    def _result(self, answer: Any) -> Ending:
        request = self.request
        if isinstance(request, Embed):
            vectors, tokens = embeddings_of(answer, len(request.inputs))
            return Embedded(request.sequence, vectors, tokens)
        assert isinstance(request, Rank)
        scores, tokens = scores_of(answer, len(request.documents))
        return Ranked(request.sequence, scores, tokens)

    async def _text(self, response: httpx2.Response, remote: RemoteRequest) -> Finished:
        answer = self._answer = TextAnswer(self.request.sequence, is_chat=remote.is_chat, max_calls=remote.max_calls)
        if response.headers.get("content-type", "").startswith("application/json"):
            self._take([answer.read(self._chunk(await json_body(response)))])
        elif not await self._stream(response, answer) and answer.reason is None:
            raise Unanswered(RemoteFailed(self._settings.name, "its answer ended before it was complete"))
        if answer.reason is None:
            raise NoAnswer("an answer without a finish_reason")
        return answer.finished()

    async def _stream(self, response: httpx2.Response, answer: TextAnswer) -> bool:
        """Publish a stream as it arrives; return whether it ended with its end marker."""
        reader = EventStreamReader()
        pieces = response.aiter_raw()
        async for piece in pieces:
            if self._receive(reader.push(piece), answer):
                try:
                    async with asyncio.timeout(_REST_S):
                        async for _ in pieces:
                            pass
                except (TimeoutError, httpx2.TransportError):
                    # The connection is not used again.
                    pass
                return True
        return self._receive(reader.close(), answer)

    def _receive(self, events: list[bytes], answer: TextAnswer) -> bool:
        """Publish the text of events; return whether the end marker is among them."""
        tokens: list[Token | None] = []
        try:
            for data in events:
                if data.strip() == b"[DONE]":
                    return True
                tokens.append(answer.read(self._chunk(orjson.loads(data))))
        finally:
            if events:
                self._take(tokens)
        return False

    def _chunk(self, event: Any) -> Any:
        """Return a chunk; raises the error that a stream may have in its place."""
        if isinstance(event, dict) and event.get("error"):
            raise self._connection.stream_error(event)
        return event

    def _take(self, tokens: list[Token | None]) -> None:
        """Publish the texts of chunks, and before the first one that the request is accepted."""
        texts = [token for token in tokens if token is not None]
        self.has_begun = self.has_begun or bool(texts)
        if not tokens:
            return
        if not self._is_accepted:
            self._is_accepted = True
            is_chat = self._remote is not None and self._remote.is_chat
            accepted = Accepted(self.request.sequence, 0, MARKED if is_chat else None)
            self._publish([accepted, *texts])
        elif texts:
            self._publish(texts)


async def remote_engine(settings: RemoteSettings, publish: Publish) -> RemoteEngine:
    """Return an engine for a model of other servers, not yet started."""
    return RemoteEngine(settings, publish, await connect(settings))
