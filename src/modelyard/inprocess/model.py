"""Models for programs without an event loop, and for many threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack

from modelyard.config import Config
from modelyard.inprocess.answers import ChatCompletion, EmbeddingResponse, RerankResponse
from modelyard.inprocess.async_model import AsyncModel, Mode, Structure
from modelyard.inprocess.loop_thread import LoopThread
from modelyard.inprocess.model_table import ModelDescription
from modelyard.inprocess.requests import ChatFields, ChatRequest, EmbeddingInput, Message
from modelyard.inprocess.streams import ChatStream
from modelyard.yard.stats.status import Plan, Status
from modelyard.yard.yard import Yard

if TYPE_CHECKING:
    import openai
    from starlette.types import ASGIApp


class Model:
    """The models of a configuration, on an event loop in a thread of its own. All methods are thread-safe.

    A request names a model by id or alias; a request that names none goes to the default model. A model that is not
    loaded is loaded first. ``builder.build()`` returns a Model; leave its context, or ``close`` it, to free everything.
    An interrupt (Ctrl-C) ends the call that it interrupts, and cancels the work of that call.

    Each method raises ``Closed`` after ``close``, and ``ForkedProcess`` in a forked child.

    Args:
        config: the models, and how each is served.
        make_yard: makes the yard; tests pass another one.

    Raises:
        ConfigError, InsufficientMemory, ModelLoadFailed: as ``Buildable.build``.
    """

    def __init__(self, config: Config, make_yard: Callable[[Config], Yard] = Yard) -> None:
        self.thread: LoopThread[AsyncModel] = LoopThread(lambda: AsyncModel(config, make_yard), "modelyard")

    def close(self) -> None:
        """End running requests with an error, free every model, and end the thread. Idempotent."""
        self.thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # The attribute is missing if the constructor failed. A finalizer may run on any thread, so it must not block.
        if hasattr(self, "thread"):
            self.thread.request_close()

    def openai_client(self, **options: Any) -> openai.OpenAI:
        """Return OpenAI's own client on these models, without a socket: code that takes such a client runs in process.

        Requests go through the HTTP application, and answers stream as over HTTP. The client raises its own exceptions
        and works until the model is closed. It does not retry by default.

        Args:
            options: arguments of ``openai.OpenAI``.

        Raises:
            ImportError: the package ``openai`` is not installed: ``pip install 'modelyard[openai]'``.
        """
        from modelyard.inprocess.transport import openai_client

        return openai_client(self._app(), lambda work: self.thread.call(lambda _: work()), **options)

    def async_openai_client(self, **options: Any) -> openai.AsyncOpenAI:
        """Return OpenAI's asynchronous client on these models, for any event loop; see ``openai_client``."""
        from modelyard.inprocess.transport import async_openai_client

        return async_openai_client(self._app(), **options)

    def _app(self) -> ASGIApp:
        from modelyard.inprocess.asgi import OtherLoopApp, in_process_app

        return OtherLoopApp(self.thread.call_sync(lambda twin: in_process_app(twin.yard)), self.thread)

    # Generated from async_model.py by `make docs`

    def send_chat_request(self, request: ChatRequest, **fields: Unpack[ChatFields]) -> ChatCompletion:
        """Call ``send_chat_request_with_model`` with the model that ``request`` names, else the default."""
        return self.send_chat_request_with_model(request, None, **fields)

    def send_chat_request_with_model(
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
        return self.thread.call(lambda twin: twin.send_chat_request_with_model(request, model, **fields))

    def stream_chat_request(self, request: ChatRequest, **fields: Unpack[ChatFields]) -> ChatStream:
        """Call ``stream_chat_request_with_model`` with the model that ``request`` names, else the default."""
        return self.stream_chat_request_with_model(request, None, **fields)

    def stream_chat_request_with_model(
        self, request: ChatRequest, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> ChatStream:
        """Return the answer to a conversation as a stream. It takes the arguments of ``send_chat_request_with_model``.

        Raises:
            InvalidRequest, ModelNotFound, ModelRequired: at once. The stream raises the other errors of
                ``send_chat_request_with_model``.
        """
        return ChatStream(self, self.thread, lambda twin: twin.stream_chat_request_with_model(request, model, **fields))

    def generate_structured(
        self, structure: type[Structure], request: ChatRequest, **fields: Unpack[ChatFields]
    ) -> Structure:
        """Call ``generate_structured_with_model`` with the model that ``request`` names, else the default."""
        return self.generate_structured_with_model(structure, request, None, **fields)

    def generate_structured_with_model(
        self, structure: type[Structure], request: ChatRequest, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> Structure:
        """Return the answer as an instance of a pydantic model. A grammar holds the answer to the model's schema.

        Raises:
            InvalidRequest: the schema cannot be enforced, or ``max_tokens`` cut the answer off.
            pydantic.ValidationError: the answer breaks a rule that no JSON schema expresses, such as a validator's.
            ModelyardError: the errors of ``send_chat_request_with_model``.
        """
        return self.thread.call(lambda twin: twin.generate_structured_with_model(structure, request, model, **fields))

    def generate_embeddings(self, inputs: EmbeddingInput) -> EmbeddingResponse:
        """Call ``generate_embeddings_with_model`` with the default model."""
        return self.generate_embeddings_with_model(inputs)

    def generate_embeddings_with_model(self, inputs: EmbeddingInput, model: str | None = None) -> EmbeddingResponse:
        """Return texts as vectors: ``vectors`` of the response is [inputs, dimensions], each row of length 1.

        Args:
            inputs: a text, texts, token ids, or lists of token ids.
            model: id or alias; None: the default.

        Raises:
            InvalidRequest: an input is empty or too long.
            UnsupportedOperation: the model is no embedding model; the error lists the embedding models.
            ModelyardError: the errors of ``send_chat_request_with_model``.
        """
        return self.thread.call(lambda twin: twin.generate_embeddings_with_model(inputs, model))

    def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, max_tokens_per_doc: int | None = None
    ) -> RerankResponse:
        """Call ``rerank_with_model`` with the default model."""
        return self.rerank_with_model(query, documents, top_n=top_n, max_tokens_per_doc=max_tokens_per_doc)

    def rerank_with_model(
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
        return self.thread.call(
            lambda twin: twin.rerank_with_model(
                query, documents, model, top_n=top_n, max_tokens_per_doc=max_tokens_per_doc
            )
        )

    def tokenize(self, text: str | Sequence[Message], *, add_special: bool = True) -> list[int]:
        """Call ``tokenize_with_model`` with the default model."""
        return self.tokenize_with_model(text, add_special=add_special)

    def tokenize_with_model(
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
        return self.thread.call(lambda twin: twin.tokenize_with_model(text, model, add_special=add_special))

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Call ``detokenize_with_model`` with the default model."""
        return self.detokenize_with_model(tokens)

    def detokenize_with_model(self, tokens: Sequence[int], model: str | None = None) -> str:
        """Return the text of token ids, in which special tokens are visible.

        Raises:
            InvalidRequest: an id is not in the model's vocabulary.
            ModelyardError: the errors of ``send_chat_request_with_model``.
        """
        return self.thread.call(lambda twin: twin.detokenize_with_model(tokens, model))

    def max_sequence_length(self) -> int | None:
        """Call ``max_sequence_length_with_model`` with the default model."""
        return self.max_sequence_length_with_model()

    def max_sequence_length_with_model(self, model: str | None = None) -> int | None:
        """Return how many tokens a prompt and its answer may have together; None until the first load of the model.

        Raises:
            ModelNotFound, ModelRequired: as ``send_chat_request_with_model``.
        """
        return self.thread.call_sync(lambda twin: twin.max_sequence_length_with_model(model))

    def list_models(self) -> list[str]:
        """Return the ids of all models, loaded or not, in the order in which they were added."""
        return self.thread.call_sync(lambda twin: twin.list_models())

    def list_models_with_status(self) -> list[tuple[str, Status]]:
        """Return the ids of all models, each with "loaded", "unloaded" or "reloading"."""
        return self.thread.call_sync(lambda twin: twin.list_models_with_status())

    def is_model_loaded(self, model: str) -> bool:
        """Whether a model, by id or alias, is loaded and serves.

        Raises:
            ModelNotFound: no model has that name.
        """
        return self.thread.call_sync(lambda twin: twin.is_model_loaded(model))

    def get_default_model_id(self) -> str | None:
        """Return the id of the model for requests that name none; None: such requests are refused."""
        return self.thread.call_sync(lambda twin: twin.get_default_model_id())

    def set_default_model_id(self, model: str) -> None:
        """Route requests that name no model to this model, by id or alias.

        Raises:
            ModelNotFound: no model has that name.
        """
        self.thread.call(lambda twin: twin.set_default_model_id(model))

    def add_model(self, builder: ModelDescription) -> None:
        """Add a model, and load it unless its builder says "on-demand". Other models serve meanwhile.

        Raises:
            ConfigError: the description is invalid, its name is taken, or files are missing or unusable.
            InsufficientMemory, ModelLoadFailed: the model cannot be loaded. No model is added after any error.
        """
        self.thread.call(lambda twin: twin.add_model(builder))

    def add_model_with_alias(self, alias: str, builder: ModelDescription) -> None:
        """Call ``add_model`` for a model whose id becomes ``alias``."""
        self.thread.call(lambda twin: twin.add_model_with_alias(alias, builder))

    def remove_model(self, model: str) -> None:
        """Remove a model, by id or alias. Its running requests finish, and then its memory is freed.

        If it was the default model, there is no default until one is set, or until a single model is left.

        Raises:
            ModelNotFound: no model has that name.
            InvalidRequest: it is the only model.
            ConfigError: another model uses it as its draft model.
        """
        self.thread.call(lambda twin: twin.remove_model(model))

    def unload_model(self, model: str, mode: Mode = "drain") -> None:
        """Free the memory of a model, by id or alias; its next request loads it again. Idempotent.

        Args:
            mode: what happens to its running requests. "drain": they finish; "suspend": they pause until the model is
                loaded again; "force": they end with an error; "park": they finish, and the weights stay in memory.

        Raises:
            ModelNotFound: no model has that name.
            ModelBusy: running requests did not finish in time.
            InvalidRequest: ``mode`` is unknown.
        """
        self.thread.call(lambda twin: twin.unload_model(model, mode))

    def reload_model(self, model: str) -> None:
        """Load a model, by id or alias, unless it is loaded. Idempotent.

        Raises:
            ModelNotFound: no model has that name.
            ModelLoadFailed, InsufficientMemory, ModelLoading: the model cannot be loaded, or not in time.
        """
        self.thread.call(lambda twin: twin.reload_model(model))

    def plan(self, model: str) -> Plan:
        """Return what a load of a model, by id or alias, would do now: its memory, and what it would evict.

        Raises:
            ModelNotFound: no model has that name.
            ModelLoadFailed: files of the model are missing or unusable.
        """
        return self.thread.call(lambda twin: twin.plan(model))

    # End of the generated methods
