"""Models on the caller's event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, get_args

from pydantic import BaseModel

from modelyard.api.media.load import MediaLoader
from modelyard.config import Config, default_model, revise
from modelyard.config import Model as ModelTable
from modelyard.errors import Closed, ForkedProcess, InvalidRequest, ModelLoadFailed
from modelyard.hub import Progress
from modelyard.inprocess.answers import (
    ChatCompletion,
    CompletionUsage,
    EmbeddingResponse,
    RankedDocument,
    RerankResponse,
)
from modelyard.inprocess.chat import Chats, requested
from modelyard.inprocess.model_table import ModelDescription, model_table
from modelyard.inprocess.requests import (
    ChatFields,
    ChatRequest,
    EmbeddingInput,
    Message,
    chat_request,
    detokenize_request,
    embedding_request,
    rerank_request,
    structure_format,
    tokenize_request,
)
from modelyard.inprocess.streams import AsyncChatStream
from modelyard.protocol.values import Usage
from modelyard.yard.requests.requests import EmbeddingRequest, WaitOptions
from modelyard.yard.residency.state import UnloadMode
from modelyard.yard.stats.status import Plan, Status
from modelyard.yard.yard import Yard

if TYPE_CHECKING:
    import openai

Structure = TypeVar("Structure", bound=BaseModel)
Mode = Literal["drain", "suspend", "force", "park"]


class AsyncModel:
    """The models of a configuration, on the event loop that it was started on.

    Every request goes to one of them, by id or alias; where none is named, to the default. One that is not loaded is
    loaded first. ``await builder.build_async()`` makes one; leave its context, or ``aclose`` it, to free everything.

    Each method raises ``Closed`` after that, ``ForkedProcess`` in a child by fork, and RuntimeError on another event
    loop.

    Args:
        config: which models, and how each is served.
        make_yard: makes the yard; another one in tests.
    """

    def __init__(self, config: Config, make_yard: Callable[[Config], Yard] = Yard) -> None:
        self._yard = make_yard(config)
        self._media = MediaLoader(self._yard)
        self._chats = Chats(self._yard, self._media)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._is_closed = False
        # One change of the models at a time: each is made of what the last one left.
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Load the models that are to be loaded at the start. ``build_async`` has done it.

        Raises:
            ConfigError, InsufficientMemory, ModelLoadFailed: as ``Buildable.build``. Everything is free again, as it is
                where this is cancelled.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await self._yard.start()
        except BaseException:
            await self.aclose()
            raise

    def load_progress(self) -> dict[str, Progress]:
        """How far each model is whose files are prepared, or whose load was begun. Also while it starts."""
        return self._yard.load_progress()

    async def aclose(self, timeout_s: float = 30.0) -> None:
        """End what runs with an error that says so, and free every model. Idempotent.

        An engine that hangs for ``timeout_s`` is left to the end of the process.
        """
        if not self._is_closed:
            self._is_closed = True
            await self._yard.close(timeout_s)

    async def __aenter__(self) -> Self:
        if self._loop is None:
            await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def yard(self) -> Yard:
        """What runs the models.

        Raises:
            Closed, ForkedProcess, RuntimeError: it cannot be used, or not here.
        """
        if os.getpid() != self._pid:
            raise ForkedProcess(self._pid)
        if self._is_closed:
            raise Closed
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError(
                "An AsyncModel is used on the event loop that it was started on. Build a Model to use it elsewhere."
            )
        return self._yard

    # Requests

    async def send_chat_request(self, request: ChatRequest, **fields: Unpack[ChatFields]) -> ChatCompletion:
        """As ``send_chat_request_with_model``, to the model that ``request`` names, else to the default."""
        return await self.send_chat_request_with_model(request, None, **fields)

    async def send_chat_request_with_model(
        self, request: ChatRequest, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> ChatCompletion:
        """The whole answer to a conversation.

        Args:
            request: what a user says, or messages, or a whole request in OpenAI's shape.
            model: id or alias; None: the one that ``request`` names, else the default.
            fields: OpenAI's and the reference's, such as ``max_tokens`` and ``temperature``.

        Raises:
            ModelNotFound: there is no such model; it names those that there are.
            ModelRequired: none is named, and there is no default.
            InvalidRequest: a field cannot be honoured, or the prompt does not suit the model.
            UnsupportedOperation: it is an embedding model.
            QueueFull, ModelLoading, InsufficientMemory, ModelLoadFailed: it cannot be had, or not in time.
            EngineError: it failed meanwhile.
        """
        body = chat_request(request, model, fields, stream=False)
        self.yard.configured(body.model)
        return await self._chats.whole(body)

    def stream_chat_request(self, request: ChatRequest, **fields: Unpack[ChatFields]) -> AsyncChatStream:
        """As ``stream_chat_request_with_model``, to the model that ``request`` names, else to the default."""
        return self.stream_chat_request_with_model(request, None, **fields)

    def stream_chat_request_with_model(
        self, request: ChatRequest, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> AsyncChatStream:
        """The answer to a conversation as it arrives. Arguments are those of ``send_chat_request_with_model``.

        Raises:
            InvalidRequest, ModelNotFound, ModelRequired: at once. The stream raises what else
                ``send_chat_request_with_model`` does.
        """
        body = chat_request(request, model, fields, stream=True)
        self.yard.configured(body.model)
        return AsyncChatStream(self._chats.chunks(body, requested(body)))

    async def generate_structured(
        self, structure: type[Structure], request: ChatRequest, **fields: Unpack[ChatFields]
    ) -> Structure:
        """As ``generate_structured_with_model``, by the model that ``request`` names, else by the default."""
        return await self.generate_structured_with_model(structure, request, None, **fields)

    async def generate_structured_with_model(
        self, structure: type[Structure], request: ChatRequest, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> Structure:
        """The answer as an instance of a pydantic model, whose schema the answer follows from its first token.

        Raises:
            InvalidRequest: its schema cannot be followed, or the answer was cut off by ``max_tokens``.
            pydantic.ValidationError: the answer breaks a rule that is in no schema, such as a validator's.
            ModelyardError: as ``send_chat_request_with_model``.
        """
        fields["response_format"] = structure_format(structure)
        completion = await self.send_chat_request_with_model(request, model, **fields)
        choice = completion.choices[0]
        if choice.finish_reason == "length":
            raise InvalidRequest(
                f"The answer was cut off after {completion.usage.completion_tokens} tokens, before its JSON was whole. "
                "Raise max_tokens, or bound the strings and lists of the structure.",
                "max_tokens",
            )
        return structure.model_validate_json(choice.message.content or "")

    async def generate_embeddings(self, inputs: EmbeddingInput) -> EmbeddingResponse:
        """As ``generate_embeddings_with_model``, by the default model."""
        return await self.generate_embeddings_with_model(inputs)

    async def generate_embeddings_with_model(
        self, inputs: EmbeddingInput, model: str | None = None
    ) -> EmbeddingResponse:
        """Texts as vectors: ``vectors`` of the answer has [inputs, dimensions], each row of length 1.

        Args:
            inputs: a text, texts, token ids, or lists of token ids.
            model: id or alias; None: the default.

        Raises:
            InvalidRequest: an input is empty or too long.
            UnsupportedOperation: it is no embedding model; it names those that are.
            ModelyardError: as ``send_chat_request_with_model``.
        """
        body = embedding_request(inputs, model)
        request = EmbeddingRequest(body.inputs(), body.model, WaitOptions())
        embeddings = await self.yard.embed(request)
        usage = Usage(embeddings.prompt_tokens, 0, 0)
        return EmbeddingResponse(embeddings.vectors, embeddings.model, CompletionUsage.of(usage))

    async def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, max_tokens_per_doc: int | None = None
    ) -> RerankResponse:
        """As ``rerank_with_model``, by the default model."""
        return await self.rerank_with_model(query, documents, top_n=top_n, max_tokens_per_doc=max_tokens_per_doc)

    async def rerank_with_model(
        self,
        query: str,
        documents: Sequence[str],
        model: str | None = None,
        *,
        top_n: int | None = None,
        max_tokens_per_doc: int | None = None,
    ) -> RerankResponse:
        """Documents by how well they answer a query, the best first.

        Args:
            query: what is asked.
            documents: texts that may answer it.
            model: id or alias of a reranker; None: the default.
            top_n: how many of the best are wanted; None: all.
            max_tokens_per_doc: a longer document is cut, and so is one that does not fit; None: that is refused.

        Raises:
            InvalidRequest: a text is empty or too long.
            UnsupportedOperation: it is no reranker; it names those that are.
            ModelyardError: as ``send_chat_request_with_model``.
        """
        body = rerank_request(query, documents, model, top_n=top_n, max_tokens_per_doc=max_tokens_per_doc)
        ranking = await self.yard.rank(body.request(WaitOptions()))
        results = tuple(RankedDocument(index, float(ranking.scores[index])) for index in ranking.best(top_n))
        return RerankResponse(results, ranking.model, CompletionUsage.of(Usage(ranking.prompt_tokens, 0, 0)))

    async def tokenize(self, text: str | Sequence[Message], *, add_special: bool = True) -> list[int]:
        """As ``tokenize_with_model``, by the default model."""
        return await self.tokenize_with_model(text, add_special=add_special)

    async def tokenize_with_model(
        self, text: str | Sequence[Message], model: str | None = None, *, add_special: bool = True
    ) -> list[int]:
        """Token ids of a text, or of a conversation as the model's chat template writes it.

        Args:
            text: a text, which is taken as it is, or messages.
            model: id or alias; None: the default.
            add_special: whether a text has the tokens around it that the model wants there.

        Raises:
            InvalidRequest: a message is none, or the template refuses them.
            ModelyardError: as ``send_chat_request_with_model``.
        """
        request = await self._media.resolved(tokenize_request(text, model, add_special=add_special))
        return list((await self.yard.tokenize(request)).tokens)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """As ``detokenize_with_model``, by the default model."""
        return await self.detokenize_with_model(tokens)

    async def detokenize_with_model(self, tokens: Sequence[int], model: str | None = None) -> str:
        """The text of token ids; special tokens are spelt out.

        Raises:
            InvalidRequest: an id is none of the model's tokens.
            ModelyardError: as ``send_chat_request_with_model``.
        """
        spelling = await self.yard.tokenize(detokenize_request(tokens, model))
        return b"".join(spelling.pieces).decode("utf-8", "replace")

    def max_sequence_length(self) -> int | None:
        """As ``max_sequence_length_with_model``, of the default model."""
        return self.max_sequence_length_with_model()

    def max_sequence_length_with_model(self, model: str | None = None) -> int | None:
        """Tokens that a prompt and its answer may have together; None until the model was loaded once.

        Raises:
            ModelNotFound, ModelRequired: there is no such model.
        """
        return self.yard.model(self.yard.configured(model).id).context_length

    def async_openai_client(self, **options: Any) -> openai.AsyncOpenAI:
        """OpenAI's own client on these models, with no socket: whatever takes one runs in process.

        It goes through the same application as HTTP, streams as it does, and raises its own exceptions. It works until
        the model is closed. It does not retry, unless ``options``, which are those of ``openai.AsyncOpenAI``, say so.

        Raises:
            ImportError: the package ``openai`` is not installed: ``pip install 'modelyard[openai]'``.
        """
        from modelyard.inprocess.asgi import UsableApp, in_process_app
        from modelyard.inprocess.transport import async_openai_client

        app = UsableApp(in_process_app(self.yard), lambda: self.yard)
        return async_openai_client(app, **options)

    # Models

    def list_models(self) -> list[str]:
        """Ids of all models, loaded or not, in the order in which they were added."""
        return [model.id for model in self.yard.models()]

    def list_models_with_status(self) -> list[tuple[str, Status]]:
        """The same, each with "loaded", "unloaded" or "reloading"."""
        return [(model.id, model.status) for model in self.yard.models()]

    def is_model_loaded(self, model: str) -> bool:
        """Whether a model, by id or alias, is in memory and serves.

        Raises:
            ModelNotFound: there is none of that name.
        """
        return self.yard.model(model).status == "loaded"

    def get_default_model_id(self) -> str | None:
        """Id of the model for requests that name none; None: they are refused."""
        return default_model(self.yard.config)

    async def set_default_model_id(self, model: str) -> None:
        """Have requests that name no model go to this one, by id or alias.

        Raises:
            ModelNotFound: there is none of that name.
        """
        async with self._changing:
            yard = self.yard
            chosen = yard.model(model).id
            yard.directory.replace_config(revise(yard.config, yard.config.models, chosen, "set_default_model_id"))

    async def add_model(self, builder: ModelDescription) -> None:
        """Add a model, and load it unless its builder says "on-demand". Others serve meanwhile.

        Raises:
            ConfigError: something in it cannot be, its name is taken, or its files are missing or unusable.
            InsufficientMemory, ModelLoadFailed: it cannot be loaded. In all cases nothing was added.
        """
        await self._add(model_table(builder, None))

    async def add_model_with_alias(self, alias: str, builder: ModelDescription) -> None:
        """As ``add_model``, for a model whose id is ``alias``."""
        await self._add(model_table(builder, alias))

    async def remove_model(self, model: str) -> None:
        """Forget a model, by id or alias. What it is answering it answers to the end; then its memory is free.

        Where it was the default, there is none until another is set, or a single model is left.

        Raises:
            ModelNotFound: there is none of that name.
            InvalidRequest: it is the only one.
            ConfigError: it drafts for another.
        """
        async with self._changing:
            await self._remove(self.yard.model(model).id)

    async def unload_model(self, model: str, mode: Mode = "drain") -> None:
        """Free the memory of a model, by id or alias; its next request loads it again. Idempotent.

        Args:
            mode: what becomes of its running requests. "drain": they end by themselves; "suspend": they pause until it
                is loaded again; "force": they end with an error; "park": as drain, and its weights stay in memory.

        Raises:
            ModelNotFound: there is none of that name.
            ModelBusy: its requests did not end in time.
            InvalidRequest: there is no such mode.
        """
        if mode not in get_args(Mode):
            raise InvalidRequest(f"'{mode}' is no mode. Choose one of {', '.join(get_args(Mode))}.", "mode")
        await self.yard.unload(model, UnloadMode(mode))

    async def reload_model(self, model: str) -> None:
        """Have a model, by id or alias, in memory. Idempotent.

        Raises:
            ModelNotFound: there is none of that name.
            ModelLoadFailed, InsufficientMemory, ModelLoading: it could not be loaded, or not in time.
        """
        await self.yard.reload(model)

    async def plan(self, model: str) -> Plan:
        """What a load of a model, by id or alias, would do now: what it needs, and what would go. Changes nothing.

        Raises:
            ModelNotFound: there is none of that name.
            ModelLoadFailed: its files are missing or unusable.
        """
        return await self.yard.plan(model)

    async def _add(self, table: ModelTable) -> None:
        async with self._changing:
            yard = self.yard
            config = yard.config
            more = revise(config, (*config.models, table), default_model(config), "add_model")
            try:
                await yard.reconfigure(more)
                if reason := yard.failed().get(table.id):
                    raise ModelLoadFailed(table.id, reason)
                if table.load == "startup":
                    await yard.reload(table.id)
            except BaseException:
                if not self._is_closed and yard.config is more:
                    await self._remove(table.id)
                raise

    async def _remove(self, model: str) -> None:
        yard = self.yard
        config = yard.config
        left = [entry for entry in config.models if entry.id != model]
        if not left:
            raise InvalidRequest(f"'{model}' is the only model. Add another before you remove it, or close them all.")
        default = default_model(config)
        await yard.reconfigure(revise(config, left, None if default == model else default, "remove_model"))
