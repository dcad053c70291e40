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
    """The models of a configuration, on a thread of their own. Every thread of the program may use it at any time.

    Every request goes to one of them, by id or alias; where none is named, to the default. One that is not loaded is
    loaded first. ``builder.build()`` makes one; leave its context, or ``close`` it, to free everything. An interrupt
    (Ctrl-C) ends the call that it meets, and what that had begun.

    Each method raises ``Closed`` after that, and ``ForkedProcess`` in a child by fork.

    Args:
        config: which models, and how each is served.
        make_yard: makes the yard; another one in tests.

    Raises:
        ConfigError, InsufficientMemory, ModelLoadFailed: as ``Buildable.build``.
    """

    def __init__(self, config: Config, make_yard: Callable[[Config], Yard] = Yard) -> None:
        self.thread: LoopThread[AsyncModel] = LoopThread(lambda: AsyncModel(config, make_yard), "modelyard")

    def close(self) -> None:
        """End what runs, free every model, and end the thread. Idempotent."""
        self.thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Not there where the constructor failed. Not waited for: it is collected wherever it happens.
        if hasattr(self, "thread"):
            self.thread.ask_to_end()

    # Requests

    def send_chat_request(self, request: ChatRequest, **fields: Unpack[ChatFields]) -> ChatCompletion:
        """As ``send_chat_request_with_model``, to the model that ``request`` names, else to the default."""
        return self.send_chat_request_with_model(request, None, **fields)

    def send_chat_request_with_model(
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
        return self.thread.call(lambda there: there.send_chat_request_with_model(request, model, **fields))

    def stream_chat_request(self, request: ChatRequest, **fields: Unpack[ChatFields]) -> ChatStream:
        """As ``stream_chat_request_with_model``, to the model that ``request`` names, else to the default."""
        return self.stream_chat_request_with_model(request, None, **fields)

    def stream_chat_request_with_model(
        self, request: ChatRequest, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> ChatStream:
        """The answer to a conversation as it arrives. Arguments are those of ``send_chat_request_with_model``.

        Raises:
            InvalidRequest, ModelNotFound, ModelRequired: at once. The stream raises what else
                ``send_chat_request_with_model`` does.
        """
        return ChatStream(
            self, self.thread, lambda there: there.stream_chat_request_with_model(request, model, **fields)
        )

    def generate_structured(
        self, structure: type[Structure], request: ChatRequest, **fields: Unpack[ChatFields]
    ) -> Structure:
        """As ``generate_structured_with_model``, by the model that ``request`` names, else by the default."""
        return self.generate_structured_with_model(structure, request, None, **fields)

    def generate_structured_with_model(
        self, structure: type[Structure], request: ChatRequest, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> Structure:
        """The answer as an instance of a pydantic model, whose schema the answer follows from its first token.

        Raises:
            InvalidRequest: its schema cannot be followed, or the answer was cut off by ``max_tokens``.
            pydantic.ValidationError: the answer breaks a rule that is in no schema, such as a validator's.
            ModelyardError: as ``send_chat_request_with_model``.
        """
        return self.thread.call(lambda there: there.generate_structured_with_model(structure, request, model, **fields))

    def generate_embeddings(self, inputs: EmbeddingInput) -> EmbeddingResponse:
        """As ``generate_embeddings_with_model``, by the default model."""
        return self.generate_embeddings_with_model(inputs)

    def generate_embeddings_with_model(self, inputs: EmbeddingInput, model: str | None = None) -> EmbeddingResponse:
        """Texts as vectors: ``vectors`` of the answer has [inputs, dimensions], each row of length 1.

        Args:
            inputs: a text, texts, token ids, or lists of token ids.
            model: id or alias; None: the default.

        Raises:
            InvalidRequest: an input is empty or too long.
            UnsupportedOperation: it is no embedding model; it names those that are.
            ModelyardError: as ``send_chat_request_with_model``.
        """
        return self.thread.call(lambda there: there.generate_embeddings_with_model(inputs, model))

    def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, max_tokens_per_doc: int | None = None
    ) -> RerankResponse:
        """As ``rerank_with_model``, by the default model."""
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
        return self.thread.call(
            lambda there: there.rerank_with_model(
                query, documents, model, top_n=top_n, max_tokens_per_doc=max_tokens_per_doc
            )
        )

    def tokenize(self, text: str | Sequence[Message], *, add_special: bool = True) -> list[int]:
        """As ``tokenize_with_model``, by the default model."""
        return self.tokenize_with_model(text, add_special=add_special)

    def tokenize_with_model(
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
        return self.thread.call(lambda there: there.tokenize_with_model(text, model, add_special=add_special))

    def detokenize(self, tokens: Sequence[int]) -> str:
        """As ``detokenize_with_model``, by the default model."""
        return self.detokenize_with_model(tokens)

    def detokenize_with_model(self, tokens: Sequence[int], model: str | None = None) -> str:
        """The text of token ids; special tokens are spelt out.

        Raises:
            InvalidRequest: an id is none of the model's tokens.
            ModelyardError: as ``send_chat_request_with_model``.
        """
        return self.thread.call(lambda there: there.detokenize_with_model(tokens, model))

    def max_sequence_length(self) -> int | None:
        """As ``max_sequence_length_with_model``, of the default model."""
        return self.max_sequence_length_with_model()

    def max_sequence_length_with_model(self, model: str | None = None) -> int | None:
        """Tokens that a prompt and its answer may have together; None until the model was loaded once.

        Raises:
            ModelNotFound, ModelRequired: there is no such model.
        """
        return self.thread.look(lambda there: there.max_sequence_length_with_model(model))

    def openai_client(self, **options: Any) -> openai.OpenAI:
        """OpenAI's own client on these models, with no socket: whatever takes one runs in process.

        It goes through the same application as HTTP, streams as it does, and raises its own exceptions. It works until
        the model is closed. It does not retry, unless ``options``, which are those of ``openai.OpenAI``, say so.

        Raises:
            ImportError: the package ``openai`` is not installed: ``pip install 'modelyard[openai]'``.
        """
        from modelyard.inprocess.transport import openai_client

        return openai_client(self._app(), lambda work: self.thread.call(lambda _: work()), **options)

    def async_openai_client(self, **options: Any) -> openai.AsyncOpenAI:
        """As ``openai_client``, for programs on an event loop, whichever that is."""
        from modelyard.inprocess.transport import async_openai_client

        return async_openai_client(self._app(), **options)

    def _app(self) -> ASGIApp:
        from modelyard.inprocess.asgi import OtherLoopApp, in_process_app

        return OtherLoopApp(self.thread.look(lambda there: in_process_app(there.yard)), self.thread)

    # Models

    def list_models(self) -> list[str]:
        """Ids of all models, loaded or not, in the order in which they were added."""
        return self.thread.look(lambda there: there.list_models())

    def list_models_with_status(self) -> list[tuple[str, Status]]:
        """The same, each with "loaded", "unloaded" or "reloading"."""
        return self.thread.look(lambda there: there.list_models_with_status())

    def is_model_loaded(self, model: str) -> bool:
        """Whether a model, by id or alias, is in memory and serves.

        Raises:
            ModelNotFound: there is none of that name.
        """
        return self.thread.look(lambda there: there.is_model_loaded(model))

    def get_default_model_id(self) -> str | None:
        """Id of the model for requests that name none; None: they are refused."""
        return self.thread.look(lambda there: there.get_default_model_id())

    def set_default_model_id(self, model: str) -> None:
        """Have requests that name no model go to this one, by id or alias.

        Raises:
            ModelNotFound: there is none of that name.
        """
        self.thread.call(lambda there: there.set_default_model_id(model))

    def add_model(self, builder: ModelDescription) -> None:
        """Add a model, and load it unless its builder says "on-demand". Others serve meanwhile.

        Raises:
            ConfigError: something in it cannot be, its name is taken, or its files are missing or unusable.
            InsufficientMemory, ModelLoadFailed: it cannot be loaded. In all cases nothing was added.
        """
        self.thread.call(lambda there: there.add_model(builder))

    def add_model_with_alias(self, alias: str, builder: ModelDescription) -> None:
        """As ``add_model``, for a model whose id is ``alias``."""
        self.thread.call(lambda there: there.add_model_with_alias(alias, builder))

    def remove_model(self, model: str) -> None:
        """Forget a model, by id or alias. What it is answering it answers to the end; then its memory is free.

        Where it was the default, there is none until another is set, or a single model is left.

        Raises:
            ModelNotFound: there is none of that name.
            InvalidRequest: it is the only one.
            ConfigError: it drafts for another.
        """
        self.thread.call(lambda there: there.remove_model(model))

    def unload_model(self, model: str, mode: Mode = "drain") -> None:
        """Free the memory of a model, by id or alias; its next request loads it again. Idempotent.

        Args:
            mode: what becomes of its running requests. "drain": they end by themselves; "suspend": they pause until it
                is loaded again; "force": they end with an error; "park": as drain, and its weights stay in memory.

        Raises:
            ModelNotFound: there is none of that name.
            ModelBusy: its requests did not end in time.
            InvalidRequest: there is no such mode.
        """
        self.thread.call(lambda there: there.unload_model(model, mode))

    def reload_model(self, model: str) -> None:
        """Have a model, by id or alias, in memory. Idempotent.

        Raises:
            ModelNotFound: there is none of that name.
            ModelLoadFailed, InsufficientMemory, ModelLoading: it could not be loaded, or not in time.
        """
        self.thread.call(lambda there: there.reload_model(model))

    def plan(self, model: str) -> Plan:
        """What a load of a model, by id or alias, would do now: what it needs, and what would go. Changes nothing.

        Raises:
            ModelNotFound: there is none of that name.
            ModelLoadFailed: its files are missing or unusable.
        """
        return self.thread.call(lambda there: there.plan(model))
