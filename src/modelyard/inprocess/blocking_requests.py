"""The requests of a model, for any thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from modelyard.inprocess.answers import ChatCompletion, Completion, EmbeddingResponse, RerankResponse
from modelyard.inprocess.async_requests import AsyncRequests, Structure
from modelyard.inprocess.fields import ChatFields, CompletionFields, EmbeddingFields, RerankFields, TokenizeFields
from modelyard.inprocess.loop_thread import LoopThread
from modelyard.inprocess.requests import ChatRequest, EmbeddingInput, Message, TextRequest
from modelyard.inprocess.shown_fields import fields_shown
from modelyard.inprocess.streams import ChatStream, CompletionStream


@fields_shown
class BlockingRequests:
    """The requests of a Model.

    Attributes:
        thread: runs the event loop of the model.
    """

    thread: LoopThread[AsyncRequests]

    # Generated from async_requests.py by `make docs`

    def send_chat_request(
        self, request: ChatRequest | None = None, *, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> ChatCompletion:
        """Call ``send_chat_request_with_model``."""
        return self.send_chat_request_with_model(request, model, **fields)

    def send_chat_request_with_model(
        self, request: ChatRequest | None = None, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> ChatCompletion:
        """Return the whole answer to a conversation.

        Args:
            request: the text of a user message, messages, or a whole request in OpenAI's shape; by name ``messages``.
            model: id or alias; None: the model that ``request`` names, else the default.
            fields: the fields of ``POST /v1/chat/completions``, such as ``max_tokens`` and ``temperature``. A pydantic
                class as ``response_format`` holds the answer to its schema. Functions in ``tools`` are called where the
                model calls them, and it goes on with the results; tools that are dicts are the caller's.

        Raises:
            ModelNotFound: no model has that name; the error lists the known names.
            ModelRequired: the request names no model, and there is no default.
            InvalidRequest: a field is unknown or cannot be honoured, or the prompt does not suit the model.
            UnsupportedOperation: the model is an embedding model.
            QueueFull, ModelLoading, InsufficientMemory, ModelLoadFailed: the model is not available in time.
            EngineError: the engine failed while it computed the answer.
        """
        return self.thread.call(lambda twin: twin.send_chat_request_with_model(request, model, **fields))

    def stream_chat_request(
        self, request: ChatRequest | None = None, *, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> ChatStream:
        """Call ``stream_chat_request_with_model``."""
        return self.stream_chat_request_with_model(request, model, **fields)

    def stream_chat_request_with_model(
        self, request: ChatRequest | None = None, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> ChatStream:
        """Return the answer to a conversation as a stream. It takes the arguments of ``send_chat_request_with_model``.

        Raises:
            InvalidRequest, ModelNotFound, ModelRequired: at once. The stream raises the other errors of
                ``send_chat_request_with_model``.
        """
        return ChatStream(self, self.thread, lambda twin: twin.stream_chat_request_with_model(request, model, **fields))

    def send_completion_request(
        self, request: TextRequest | None = None, *, model: str | None = None, **fields: Unpack[CompletionFields]
    ) -> Completion:
        """Call ``send_completion_request_with_model``."""
        return self.send_completion_request_with_model(request, model, **fields)

    def send_completion_request_with_model(
        self, request: TextRequest | None = None, model: str | None = None, **fields: Unpack[CompletionFields]
    ) -> Completion:
        """Continue texts as they are, without a chat template: base models answer so.

        Args:
            request: a text, texts, token ids, lists of token ids, or a whole request in OpenAI's shape; by name
                ``prompt``.
            model: id or alias; None: the model that ``request`` names, else the default.
            fields: the fields of ``POST /v1/completions``, such as ``suffix`` (the text after the gap that the model
                fills in), ``echo``, ``logprobs`` and ``max_tokens``.

        Raises:
            ModelyardError: the errors of ``send_chat_request_with_model``.
        """
        return self.thread.call(lambda twin: twin.send_completion_request_with_model(request, model, **fields))

    def stream_completion_request(
        self, request: TextRequest | None = None, *, model: str | None = None, **fields: Unpack[CompletionFields]
    ) -> CompletionStream:
        """Call ``stream_completion_request_with_model``."""
        return self.stream_completion_request_with_model(request, model, **fields)

    def stream_completion_request_with_model(
        self, request: TextRequest | None = None, model: str | None = None, **fields: Unpack[CompletionFields]
    ) -> CompletionStream:
        """Return continued texts as a stream. It takes the arguments of ``send_completion_request_with_model``.

        Raises:
            InvalidRequest, ModelNotFound, ModelRequired: at once. The stream raises the other errors of
                ``send_chat_request_with_model``.
        """
        return CompletionStream(
            self, self.thread, lambda twin: twin.stream_completion_request_with_model(request, model, **fields)
        )

    def generate_structured(
        self,
        structure: type[Structure],
        request: ChatRequest | None = None,
        *,
        model: str | None = None,
        **fields: Unpack[ChatFields],
    ) -> Structure:
        """Call ``generate_structured_with_model``."""
        return self.generate_structured_with_model(structure, request, model, **fields)

    def generate_structured_with_model(
        self,
        structure: type[Structure],
        request: ChatRequest | None = None,
        model: str | None = None,
        **fields: Unpack[ChatFields],
    ) -> Structure:
        """Return the answer as an instance of a pydantic model. A grammar holds the answer to the model's schema.

        Raises:
            InvalidRequest: the schema cannot be enforced, ``max_tokens`` cut the answer off, or the request has another
                ``response_format``.
            AnswerInvalid: the answer breaks a rule that no JSON schema expresses, such as a validator's.
            ModelyardError: the errors of ``send_chat_request_with_model``.
        """
        return self.thread.call(lambda twin: twin.generate_structured_with_model(structure, request, model, **fields))

    def generate_embeddings(
        self, inputs: EmbeddingInput | None = None, *, model: str | None = None, **fields: Unpack[EmbeddingFields]
    ) -> EmbeddingResponse:
        """Call ``generate_embeddings_with_model``."""
        return self.generate_embeddings_with_model(inputs, model, **fields)

    def generate_embeddings_with_model(
        self, inputs: EmbeddingInput | None = None, model: str | None = None, **fields: Unpack[EmbeddingFields]
    ) -> EmbeddingResponse:
        """Return texts as vectors: ``vectors`` of the response is [inputs, dimensions], each row of length 1.

        Args:
            inputs: a text, texts, token ids, or lists of token ids; by name ``input``.
            model: id or alias; None: the default.
            fields: the fields of ``POST /v1/embeddings``.

        Raises:
            InvalidRequest: an input is empty or too long.
            UnsupportedOperation: the model is no embedding model; the error lists the embedding models.
            ModelyardError: the errors of ``send_chat_request_with_model``.
        """
        return self.thread.call(lambda twin: twin.generate_embeddings_with_model(inputs, model, **fields))

    def rerank(
        self, query: str, documents: Sequence[str], *, model: str | None = None, **fields: Unpack[RerankFields]
    ) -> RerankResponse:
        """Call ``rerank_with_model``."""
        return self.rerank_with_model(query, documents, model, **fields)

    def rerank_with_model(
        self, query: str, documents: Sequence[str], model: str | None = None, **fields: Unpack[RerankFields]
    ) -> RerankResponse:
        """Rank documents by how well they answer a query, the best first.

        Args:
            query: the question.
            documents: texts that may answer it.
            model: id or alias of a reranker; None: the default.
            fields: the fields of ``POST /v1/rerank``: ``top_n``, how many of the best documents to return;
                ``max_tokens_per_doc``, where to cut documents that are longer (documents that do not fit are refused
                otherwise); ``return_documents``.

        Raises:
            InvalidRequest: a text is empty or too long.
            UnsupportedOperation: the model is no reranker; the error lists the rerankers.
            ModelyardError: the errors of ``send_chat_request_with_model``.
        """
        return self.thread.call(lambda twin: twin.rerank_with_model(query, documents, model, **fields))

    def tokenize(
        self, text: str | Sequence[Message], *, model: str | None = None, **fields: Unpack[TokenizeFields]
    ) -> list[int]:
        """Call ``tokenize_with_model``."""
        return self.tokenize_with_model(text, model, **fields)

    def tokenize_with_model(
        self, text: str | Sequence[Message], model: str | None = None, **fields: Unpack[TokenizeFields]
    ) -> list[int]:
        """Return the token ids of a text, or of a conversation as the model's chat template renders it.

        Args:
            text: a text, which no template changes, or messages.
            model: id or alias; None: the default.
            fields: the fields of ``POST /tokenize``: ``add_special=False`` leaves out the model's begin and end tokens,
                ``parse_special=False`` reads special tokens as text, ``tools`` are part of a conversation.

        Raises:
            InvalidRequest: a message is malformed, or the template refuses the messages.
            ModelyardError: the errors of ``send_chat_request_with_model``.
        """
        return self.thread.call(lambda twin: twin.tokenize_with_model(text, model, **fields))

    def detokenize(self, tokens: Sequence[int], *, model: str | None = None) -> str:
        """Call ``detokenize_with_model``."""
        return self.detokenize_with_model(tokens, model)

    def detokenize_with_model(self, tokens: Sequence[int], model: str | None = None) -> str:
        """Return the text of token ids, in which special tokens are visible.

        Raises:
            InvalidRequest: an id is not in the model's vocabulary.
            ModelyardError: the errors of ``send_chat_request_with_model``.
        """
        return self.thread.call(lambda twin: twin.detokenize_with_model(tokens, model))

    # End of the generated methods
