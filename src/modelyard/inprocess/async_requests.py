"""The requests of a model, on its event loop.

``scripts/write_model.py`` writes ``blocking_requests.py``, whose methods block, from this module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from typing import TypeVar, Unpack

from pydantic import BaseModel, ValidationError

from modelyard.api.media.load import MediaLoader
from modelyard.api.openai.embeddings import check_dimensions
from modelyard.api.rerank.routes import rerank_body
from modelyard.errors import AnswerInvalid, InvalidRequest
from modelyard.inprocess.answers import (
    ChatCompletion,
    Completion,
    EmbeddingResponse,
    PooledUsage,
    RerankResponse,
)
from modelyard.inprocess.chat import Chats
from modelyard.inprocess.completions import Completions, to_requests
from modelyard.inprocess.fields import ChatFields, CompletionFields, EmbeddingFields, RerankFields, TokenizeFields
from modelyard.inprocess.progress import ProgressDisplay
from modelyard.inprocess.request_tools import take_functions, tool_definitions
from modelyard.inprocess.requests import (
    ChatRequest,
    EmbeddingInput,
    Message,
    TextRequest,
    chat_request,
    check_unstructured,
    completion_request,
    detokenize_request,
    embedding_request,
    rerank_request,
    structure_format,
    tokenize_request,
)
from modelyard.inprocess.shown_fields import fields_shown
from modelyard.inprocess.streams import AsyncChatStream, AsyncCompletionStream
from modelyard.inprocess.tools.source import ModelToolbox
from modelyard.yard.requests.requests import WaitOptions
from modelyard.yard.yard import Yard

Structure = TypeVar("Structure", bound=BaseModel)
_T = TypeVar("_T")


@fields_shown
class AsyncRequests(ABC):
    """The requests of an AsyncModel.

    Args:
        yard: runs the models.
        display: shows the load that a request waits for.
        toolbox: the tools that the models may call.
    """

    def __init__(self, yard: Yard, display: ProgressDisplay, toolbox: ModelToolbox) -> None:
        self._display = display
        self._media = MediaLoader(yard)
        self._chats, self._completions = Chats(yard, self._media, toolbox), Completions(yard)

    @property
    @abstractmethod
    def yard(self) -> Yard:
        """The yard that runs the models; raises where it cannot be used."""

    async def send_chat_request(
        self, request: ChatRequest | None = None, *, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> ChatCompletion:
        """Call ``send_chat_request_with_model``."""
        return await self.send_chat_request_with_model(request, model, **fields)

    async def send_chat_request_with_model(
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
        asked = take_functions(request, fields)
        body = chat_request(asked.request, model, asked.fields, stream=False)
        answering = self.yard.configured(body.model).id
        return await self._waiting(self._chats.whole(body, asked.functions), answering)

    def stream_chat_request(
        self, request: ChatRequest | None = None, *, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> AsyncChatStream:
        """Call ``stream_chat_request_with_model``."""
        return self.stream_chat_request_with_model(request, model, **fields)

    def stream_chat_request_with_model(
        self, request: ChatRequest | None = None, model: str | None = None, **fields: Unpack[ChatFields]
    ) -> AsyncChatStream:
        """Return the answer to a conversation as a stream. It takes the arguments of ``send_chat_request_with_model``.

        Raises:
            InvalidRequest, ModelNotFound, ModelRequired: at once. The stream raises the other errors of
                ``send_chat_request_with_model``.
        """
        asked = take_functions(request, fields)
        body = chat_request(asked.request, model, asked.fields, stream=True)
        answering = self.yard.configured(body.model).id
        prepared = self._chats.prepared(body, asked.functions)
        return AsyncChatStream(
            self._chats.chunks(prepared, lambda accepted: self._waiting(accepted, answering)), answering
        )

    async def send_completion_request(
        self, request: TextRequest | None = None, *, model: str | None = None, **fields: Unpack[CompletionFields]
    ) -> Completion:
        """Call ``send_completion_request_with_model``."""
        return await self.send_completion_request_with_model(request, model, **fields)

    async def send_completion_request_with_model(
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
        body = completion_request(request, model, fields, stream=False)
        answering = self.yard.configured(body.model).id
        return await self._waiting(self._completions.whole(body), answering)

    def stream_completion_request(
        self, request: TextRequest | None = None, *, model: str | None = None, **fields: Unpack[CompletionFields]
    ) -> AsyncCompletionStream:
        """Call ``stream_completion_request_with_model``."""
        return self.stream_completion_request_with_model(request, model, **fields)

    def stream_completion_request_with_model(
        self, request: TextRequest | None = None, model: str | None = None, **fields: Unpack[CompletionFields]
    ) -> AsyncCompletionStream:
        """Return continued texts as a stream. It takes the arguments of ``send_completion_request_with_model``.

        Raises:
            InvalidRequest, ModelNotFound, ModelRequired: at once. The stream raises the other errors of
                ``send_chat_request_with_model``.
        """
        body = completion_request(request, model, fields, stream=True)
        answering = self.yard.configured(body.model).id
        requests = to_requests(body)
        return AsyncCompletionStream(
            self._completions.chunks(body, requests, lambda accepted: self._waiting(accepted, answering)), answering
        )

    async def generate_structured(
        self,
        structure: type[Structure],
        request: ChatRequest | None = None,
        *,
        model: str | None = None,
        **fields: Unpack[ChatFields],
    ) -> Structure:
        """Call ``generate_structured_with_model``."""
        return await self.generate_structured_with_model(structure, request, model, **fields)

    async def generate_structured_with_model(
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
        answer_format = structure_format(structure)
        check_unstructured(request, fields, structure)
        fields["response_format"] = answer_format
        completion = await self.send_chat_request_with_model(request, model, **fields)
        choice = completion.choices[0]
        if choice.finish_reason == "length":
            raise InvalidRequest(
                f"The answer was cut off after {completion.usage.completion_tokens} tokens, before its JSON was whole. "
                "Raise max_tokens, or bound the strings and lists of the structure.",
                "max_tokens",
            )
        answer = choice.message.content or ""
        try:
            return structure.model_validate_json(answer)
        except ValidationError as invalid:
            problem = invalid.errors(include_url=False)[0]
            where = ".".join(map(str, problem["loc"]))
            raise AnswerInvalid(
                structure.__name__, f"{where}: {problem['msg']}" if where else problem["msg"], answer
            ) from invalid

    async def generate_embeddings(
        self, inputs: EmbeddingInput | None = None, *, model: str | None = None, **fields: Unpack[EmbeddingFields]
    ) -> EmbeddingResponse:
        """Call ``generate_embeddings_with_model``."""
        return await self.generate_embeddings_with_model(inputs, model, **fields)

    async def generate_embeddings_with_model(
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
        body = embedding_request(inputs, model, fields)
        request = body.request(WaitOptions(keep_alive_s=body.keep_alive))
        answering = self.yard.configured(body.model).id
        embeddings = await self._waiting(self.yard.embed(request), answering)
        check_dimensions(embeddings, body.dimensions)
        usage = PooledUsage(prompt_tokens=embeddings.prompt_tokens, total_tokens=embeddings.prompt_tokens)
        return EmbeddingResponse.of(embeddings.vectors, embeddings.model, usage)

    async def rerank(
        self, query: str, documents: Sequence[str], *, model: str | None = None, **fields: Unpack[RerankFields]
    ) -> RerankResponse:
        """Call ``rerank_with_model``."""
        return await self.rerank_with_model(query, documents, model, **fields)

    async def rerank_with_model(
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
        body = rerank_request(query, documents, model, fields)
        request = body.request(WaitOptions(keep_alive_s=body.keep_alive))
        answering = self.yard.configured(body.model).id
        ranking = await self._waiting(self.yard.rank(request), answering)
        return RerankResponse.model_validate(rerank_body(ranking, body))

    async def tokenize(
        self, text: str | Sequence[Message], *, model: str | None = None, **fields: Unpack[TokenizeFields]
    ) -> list[int]:
        """Call ``tokenize_with_model``."""
        return await self.tokenize_with_model(text, model, **fields)

    async def tokenize_with_model(
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
        if (tools := fields.get("tools")) is not None:
            fields["tools"] = tool_definitions(tools)
        request = tokenize_request(text, model, fields)
        answering = self.yard.configured(request.model).id
        request = await self._media.resolved(request)
        return list((await self._waiting(self.yard.tokenize(request), answering)).tokens)

    async def detokenize(self, tokens: Sequence[int], *, model: str | None = None) -> str:
        """Call ``detokenize_with_model``."""
        return await self.detokenize_with_model(tokens, model)

    async def detokenize_with_model(self, tokens: Sequence[int], model: str | None = None) -> str:
        """Return the text of token ids, in which special tokens are visible.

        Raises:
            InvalidRequest: an id is not in the model's vocabulary.
            ModelyardError: the errors of ``send_chat_request_with_model``.
        """
        request = detokenize_request(tokens, model)
        answering = self.yard.configured(request.model).id
        tokenization = await self._waiting(self.yard.tokenize(request), answering)
        return b"".join(tokenization.pieces).decode("utf-8", "replace")

    async def _waiting(self, work: Awaitable[_T], model: str) -> _T:
        """Wait for ``work``, and show how ``model``, by id, loads until it serves."""
        yard = self.yard
        return await self._display.during(work, lambda: not yard.health.stage(model))
