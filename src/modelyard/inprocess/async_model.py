"""Models on the caller's event loop.

``scripts/write_model.py`` writes the methods of ``Model``, which blocks, from those of ``AsyncModel``.
"""

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
from modelyard.inprocess.chat import Chats, to_request
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

    A request names a model by id or alias; a request that names none goes to the default model. A model that is not
    loaded is loaded first. ``await builder.build_async()`` returns an AsyncModel; leave its context, or ``aclose`` it,
    to free everything.

    Each method raises ``Closed`` after ``aclose``, ``ForkedProcess`` in a forked child, and RuntimeError on another
    event loop.

    Args:
        config: the models, and how each is served.
        make_yard: makes the yard; tests pass another one.
    """

    def __init__(self, config: Config, make_yard: Callable[[Config], Yard] = Yard) -> None:
        self._yard = make_yard(config)
        self._media = MediaLoader(self._yard)
        self._chats = Chats(self._yard, self._media)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._is_closed = False
        # Each change of the models starts from the configuration that the previous change left.
        self._change_lock = asyncio.Lock()

    async def start(self) -> None:
        """Load the models whose ``load`` is "startup". ``build_async`` calls it.

        Raises:
            ConfigError, InsufficientMemory, ModelLoadFailed: as ``Buildable.build``. Everything is freed then, and
                also where the call is cancelled.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await self._yard.start()
        except BaseException:
            await self.aclose()
            raise

    def load_progress(self) -> dict[str, Progress]:
        """Progress of each model whose files are being prepared, or whose load has started. Works during ``start``."""
        return self._yard.load_progress()

    async def aclose(self, timeout_s: float = 30.0) -> None:
        """End running requests with an error, and free every model. Idempotent.

        An engine that hangs for ``timeout_s`` is left running until the process ends.
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
        """The yard that runs the models.

        Raises:
            Closed, ForkedProcess: the model was closed, or belongs to the parent process.
            RuntimeError: the caller is not on the event loop of the model.
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
        """Call ``send_chat_request_with_model`` with the model that ``request`` names, else the default."""
        return await self.send_chat_request_with_model(request, None, **fields)

    async def send_chat_request_with_model(
        self, request: ChatRequest, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> ChatCompletion:
        """Return the whole answer to a conversation.

        Args:
            request: the text of a user message, or messages, or a whole request in OpenAI's shape.
            model: id or alias; None: the model that ``request`` names, else the default.
            fields: fields of OpenAI and of mistral.rs, such as ``max_tokens`` and ``temperature``.

        Raises:
            ModelNotFound: no model has that name; the error lists the known names.
            ModelRequired: the request names no model, and there is no default.
            InvalidRequest: a field cannot be honoured, or the prompt does not suit the model.
            UnsupportedOperation: the model is an embedding model.
            QueueFull, ModelLoading, InsufficientMemory, ModelLoadFailed: the model is not available in time.
            EngineError: the engine failed while it computed the answer.
        """
        body = chat_request(request, model, fields, stream=False)
        self.yard.configured(body.model)
        return await self._chats.whole(body)

    def stream_chat_request(self, request: ChatRequest, **fields: Unpack[ChatFields]) -> AsyncChatStream:
        """Call ``stream_chat_request_with_model`` with the model that ``request`` names, else the default."""
        return self.stream_chat_request_with_model(request, None, **fields)

    def stream_chat_request_with_model(
        self, request: ChatRequest, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> AsyncChatStream:
        """Return the answer to a conversation as a stream. It takes the arguments of ``send_chat_request_with_model``.

        Raises:
            InvalidRequest, ModelNotFound, ModelRequired: at once. The stream raises the other errors of
                ``send_chat_request_with_model``.
        """
        body = chat_request(request, model, fields, stream=True)
        self.yard.configured(body.model)
        return AsyncChatStream(self._chats.chunks(body, to_request(body)))

    async def generate_structured(
        self, structure: type[Structure], request: ChatRequest, **fields: Unpack[ChatFields]
    ) -> Structure:
        """Call ``generate_structured_with_model`` with the model that ``request`` names, else the default."""
        return await self.generate_structured_with_model(structure, request, None, **fields)

    async def generate_structured_with_model(
        self, structure: type[Structure], request: ChatRequest, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> Structure:
        """Return the answer as an instance of a pydantic model. A grammar holds the answer to the model's schema.

        Raises:
            InvalidRequest: the schema cannot be enforced, or ``max_tokens`` cut the answer off.
            pydantic.ValidationError: the answer breaks a rule that no JSON schema expresses, such as a validator's.
            ModelyardError: the errors of ``send_chat_request_with_model``.
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
        """Call ``generate_embeddings_with_model`` with the default model."""
        return await self.generate_embeddings_with_model(inputs)

    async def generate_embeddings_with_model(
        self, inputs: EmbeddingInput, model: str | None = None
    ) -> EmbeddingResponse:
        """Return texts as vectors: ``vectors`` of the response is [inputs, dimensions], each row of length 1.

        Args:
            inputs: a text, texts, token ids, or lists of token ids.
            model: id or alias; None: the default.

        Raises:
            InvalidRequest: an input is empty or too long.
            UnsupportedOperation: the model is no embedding model; the error lists the embedding models.
            ModelyardError: the errors of ``send_chat_request_with_model``.
        """
        body = embedding_request(inputs, model)
        request = EmbeddingRequest(body.inputs(), body.model, WaitOptions())
        embeddings = await self.yard.embed(request)
        usage = Usage(embeddings.prompt_tokens, 0, 0)
        return EmbeddingResponse(embeddings.vectors, embeddings.model, CompletionUsage.of(usage))

    async def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, max_tokens_per_doc: int | None = None
    ) -> RerankResponse:
        """Call ``rerank_with_model`` with the default model."""
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
        """Rank documents by how well they answer a query, the best first.

        Args:
            query: the question.
            documents: texts that may answer it.
            model: id or alias of a reranker; None: the default.
            top_n: how many of the best documents to return; None: all.
            max_tokens_per_doc: cut documents that are longer, or that do not fit; None: refuse documents that do not
                fit.

        Raises:
            InvalidRequest: a text is empty or too long.
            UnsupportedOperation: the model is no reranker; the error lists the rerankers.
            ModelyardError: the errors of ``send_chat_request_with_model``.
        """
        body = rerank_request(query, documents, model, top_n=top_n, max_tokens_per_doc=max_tokens_per_doc)
        ranking = await self.yard.rank(body.request(WaitOptions()))
        results = tuple(RankedDocument(index, float(ranking.scores[index])) for index in ranking.best(top_n))
        return RerankResponse(results, ranking.model, CompletionUsage.of(Usage(ranking.prompt_tokens, 0, 0)))

    async def tokenize(self, text: str | Sequence[Message], *, add_special: bool = True) -> list[int]:
        """Call ``tokenize_with_model`` with the default model."""
        return await self.tokenize_with_model(text, add_special=add_special)

    async def tokenize_with_model(
        self, text: str | Sequence[Message], model: str | None = None, *, add_special: bool = True
    ) -> list[int]:
        """Return the token ids of a text, or of a conversation as the model's chat template renders it.

        Args:
            text: a text, which no template changes, or messages.
            model: id or alias; None: the default.
            add_special: whether to add the model's begin and end tokens to a text.

        Raises:
            InvalidRequest: a message is malformed, or the template refuses the messages.
            ModelyardError: the errors of ``send_chat_request_with_model``.
        """
        request = await self._media.resolved(tokenize_request(text, model, add_special=add_special))
        return list((await self.yard.tokenize(request)).tokens)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Call ``detokenize_with_model`` with the default model."""
        return await self.detokenize_with_model(tokens)

    async def detokenize_with_model(self, tokens: Sequence[int], model: str | None = None) -> str:
        """Return the text of token ids, in which special tokens are visible.

        Raises:
            InvalidRequest: an id is not in the model's vocabulary.
            ModelyardError: the errors of ``send_chat_request_with_model``.
        """
        tokenization = await self.yard.tokenize(detokenize_request(tokens, model))
        return b"".join(tokenization.pieces).decode("utf-8", "replace")

    def max_sequence_length(self) -> int | None:
        """Call ``max_sequence_length_with_model`` with the default model."""
        return self.max_sequence_length_with_model()

    def max_sequence_length_with_model(self, model: str | None = None) -> int | None:
        """Return how many tokens a prompt and its answer may have together; None until the first load of the model.

        Raises:
            ModelNotFound, ModelRequired: as ``send_chat_request_with_model``.
        """
        return self.yard.model(self.yard.configured(model).id).context_length

    def async_openai_client(self, **options: Any) -> openai.AsyncOpenAI:
        """Return OpenAI's own client on these models, without a socket: code that takes such a client runs in process.

        Requests go through the HTTP application, and answers stream as over HTTP. The client raises its own exceptions
        and works until the model is closed. It does not retry by default.

        Args:
            options: arguments of ``openai.AsyncOpenAI``.

        Raises:
            ImportError: the package ``openai`` is not installed: ``pip install 'modelyard[openai]'``.
        """
        from modelyard.inprocess.asgi import UsableApp, in_process_app
        from modelyard.inprocess.transport import async_openai_client

        app = UsableApp(in_process_app(self.yard), lambda: self.yard)
        return async_openai_client(app, **options)

    # Models

    def list_models(self) -> list[str]:
        """Return the ids of all models, loaded or not, in the order in which they were added."""
        return [model.id for model in self.yard.models()]

    def list_models_with_status(self) -> list[tuple[str, Status]]:
        """Return the ids of all models, each with "loaded", "unloaded" or "reloading"."""
        return [(model.id, model.status) for model in self.yard.models()]

    def is_model_loaded(self, model: str) -> bool:
        """Whether a model, by id or alias, is loaded and serves.

        Raises:
            ModelNotFound: no model has that name.
        """
        return self.yard.model(model).status == "loaded"

    def get_default_model_id(self) -> str | None:
        """Return the id of the model for requests that name none; None: such requests are refused."""
        return default_model(self.yard.config)

    async def set_default_model_id(self, model: str) -> None:
        """Route requests that name no model to this model, by id or alias.

        Raises:
            ModelNotFound: no model has that name.
        """
        async with self._change_lock:
            yard = self.yard
            model_id = yard.model(model).id
            yard.directory.replace_config(revise(yard.config, yard.config.models, model_id, "set_default_model_id"))

    async def add_model(self, builder: ModelDescription) -> None:
        """Add a model, and load it unless its builder says "on-demand". Other models serve meanwhile.

        Raises:
            ConfigError: the description is invalid, its name is taken, or files are missing or unusable.
            InsufficientMemory, ModelLoadFailed: the model cannot be loaded. No model is added after any error.
        """
        await self._add(model_table(builder, None))

    async def add_model_with_alias(self, alias: str, builder: ModelDescription) -> None:
        """Call ``add_model`` for a model whose id becomes ``alias``."""
        await self._add(model_table(builder, alias))

    async def remove_model(self, model: str) -> None:
        """Remove a model, by id or alias. Its running requests finish, and then its memory is freed.

        If it was the default model, there is no default until one is set, or until a single model is left.

        Raises:
            ModelNotFound: no model has that name.
            InvalidRequest: it is the only model.
            ConfigError: another model uses it as its draft model.
        """
        async with self._change_lock:
            await self._remove(self.yard.model(model).id)

    async def unload_model(self, model: str, mode: Mode = "drain") -> None:
        """Free the memory of a model, by id or alias; its next request loads it again. Idempotent.

        Args:
            mode: what happens to its running requests. "drain": they finish; "suspend": they pause until the model is
                loaded again; "force": they end with an error; "park": they finish, and the weights stay in memory.

        Raises:
            ModelNotFound: no model has that name.
            ModelBusy: running requests did not finish in time.
            InvalidRequest: ``mode`` is unknown.
        """
        if mode not in get_args(Mode):
            raise InvalidRequest(f"'{mode}' is no mode. Choose one of {', '.join(get_args(Mode))}.", "mode")
        await self.yard.unload(model, UnloadMode(mode))

    async def reload_model(self, model: str) -> None:
        """Load a model, by id or alias, unless it is loaded. Idempotent.

        Raises:
            ModelNotFound: no model has that name.
            ModelLoadFailed, InsufficientMemory, ModelLoading: the model cannot be loaded, or not in time.
        """
        await self.yard.reload(model)

    async def plan(self, model: str) -> Plan:
        """Return what a load of a model, by id or alias, would do now: its memory, and what it would evict.

        Raises:
            ModelNotFound: no model has that name.
            ModelLoadFailed: files of the model are missing or unusable.
        """
        return await self.yard.plan(model)

    async def _add(self, table: ModelTable) -> None:
        async with self._change_lock:
            yard = self.yard
            config = yard.config
            extended = revise(config, (*config.models, table), default_model(config), "add_model")
            try:
                await yard.reconfigure(extended)
                if reason := yard.failed().get(table.id):
                    raise ModelLoadFailed(table.id, reason)
                if table.load == "startup":
                    await yard.reload(table.id)
            except BaseException:
                if not self._is_closed and yard.config is extended:
                    await self._remove(table.id)
                raise

    async def _remove(self, model: str) -> None:
        yard = self.yard
        config = yard.config
        remaining = [entry for entry in config.models if entry.id != model]
        if not remaining:
            raise InvalidRequest(f"'{model}' is the only model. Add another before you remove it, or close them all.")
        default = default_model(config)
        await yard.reconfigure(revise(config, remaining, None if default == model else default, "remove_model"))
