"""Errors of the content of a request: fields, prompts, grammars, and names of models and responses."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from modelyard.errors.base import ModelyardError


class InvalidRequest(ModelyardError):
    """A field of the request, or the request as a whole, cannot be honoured."""

    code = "invalid_request"
    status = 400
    type = "invalid_request_error"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.message, self.param = message, param

    def __str__(self) -> str:
        return self.message


class UnsupportedOperation(InvalidRequest):
    """The model exists but cannot do what was asked of it."""

    code = "unsupported_operation"


class TakesNoImages(UnsupportedOperation):
    """An image was sent to a model that takes no images.

    Args:
        model: id of the model.
        param: the request field of the image.
        able: ids of known models that take images.
    """

    def __init__(self, model: str, param: str, able: Sequence[str] = ()) -> None:
        super().__init__(_takes_none(model, "images", able), param)
        self.args = (model, param, able)


class TakesNoSound(UnsupportedOperation):
    """A clip of sound was sent to a model that takes no sound.

    Args:
        model: id of the model.
        param: the request field of the clip.
        able: ids of known models that take sound.
    """

    def __init__(self, model: str, param: str, able: Sequence[str] = ()) -> None:
        super().__init__(_takes_none(model, "sound", able), param)
        self.args = (model, param, able)


def _takes_none(model: str, what: str, able: Sequence[str]) -> str:
    advice = (
        f"Models that take {what}: {', '.join(able)}" if able else f"Send text alone, or name one that takes {what}"
    )
    return f"The model '{model}' takes no {what}: it is served without a projector (mmproj) that does. {advice}."


class ContextLengthExceeded(InvalidRequest):
    """The prompt alone does not fit the model's context.

    Args:
        context_length: length of the context in tokens.
        prompt_tokens: tokens of the prompt; None: the text was refused before it was tokenised.
        param: the request field of the prompt.
    """

    code = "context_length_exceeded"

    def __init__(self, context_length: int, prompt_tokens: int | None, param: str = "messages") -> None:
        length = f"{prompt_tokens} tokens" if prompt_tokens is not None else "far too much text"
        super().__init__(
            f"The prompt has {length}, but the model's context is {context_length} tokens, of which at least one "
            "must be left for the answer. Shorten the prompt, or serve the model with a larger context.",
            param,
        )
        self.args = (context_length, prompt_tokens, param)


class ConversationTooLong(ContextLengthExceeded):
    """A conversation has more bytes than a chat template may render, which is more than fits any context."""

    def __init__(self, size: int, limit: int, param: str = "messages") -> None:
        InvalidRequest.__init__(
            self,
            f"The conversation has {size:,} bytes, and a chat template renders {limit:,} at most. Shorten it.",
            param,
        )
        self.args = (size, limit, param)


class ContextNotPermitted(ContextLengthExceeded):
    """A prompt and its answer have more tokens than the API key may use for both.

    Args:
        permitted: limit of the key.
        prompt_tokens: tokens of the prompt.
        max_tokens: limit of the answer in the request; None: it has none.
        param: the request field of the prompt.
    """

    def __init__(
        self, permitted: int, prompt_tokens: int, max_tokens: int | None = None, param: str = "messages"
    ) -> None:
        if max_tokens is None:
            requested, remedy = "", "Shorten the prompt."
        else:
            requested = f", and {max_tokens} are requested for the answer"
            remedy = "Shorten the prompt, or lower max_tokens."
        InvalidRequest.__init__(
            self,
            f"The prompt has {prompt_tokens} tokens{requested}. This API key may use {permitted} for a prompt and its "
            f"answer together (max_context). {remedy}",
            param,
        )
        self.args = (permitted, prompt_tokens, max_tokens, param)


class InputTooLong(InvalidRequest):
    """A text for an embedding or a ranking has more tokens than the model takes.

    Args:
        limit: limit of the model in tokens.
        tokens: tokens of the text; None: the text was refused before it was tokenised.
        param: the request field of the text.
        remedy: an alternative to a shorter text.
    """

    code = "context_length_exceeded"

    def __init__(
        self, limit: int, tokens: int | None, param: str, remedy: str = "split it into several inputs"
    ) -> None:
        length = f"{tokens} tokens" if tokens is not None else "far too much text"
        super().__init__(
            f"'{param}' has {length}, but the model takes {limit} tokens at most. Shorten it, or {remedy}.", param
        )
        self.args = (limit, tokens, param, remedy)


class GrammarBroken(InvalidRequest):
    """The answer cannot follow its grammar any further. The test of the grammar did not detect this."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The answer cannot follow its grammar any further: {reason}. Simplify the request's schema or grammar."
        )
        self.args = (reason,)


class ModelRequired(ModelyardError):
    """The request names no model, and no default model is configured."""

    code = "model_required"
    status = 400
    type = "invalid_request_error"
    param = "model"

    def __init__(self, known: Sequence[str]) -> None:
        super().__init__(known)
        self.known = tuple(known)

    def __str__(self) -> str:
        return (
            f"The request names no model and no default is configured. Set 'model' to one of: {', '.join(self.known)}."
        )


class ModelNotFound(ModelyardError):
    """No model has that id or alias."""

    code = "model_not_found"
    status = 404
    type = "invalid_request_error"
    param = "model"

    def __init__(self, model: str, known: Sequence[str]) -> None:
        super().__init__(model, known)
        self.model, self.known = model, tuple(known)

    def __str__(self) -> str:
        matches = get_close_matches(self.model, self.known, n=1)
        hint = f" Did you mean '{matches[0]}'?" if matches else ""
        known = f" Known: {', '.join(self.known)}." if self.known else ""
        return f"The model '{self.model}' does not exist.{known}{hint}"


class ResponseNotFound(ModelyardError):
    """No response with that id is stored."""

    code = "response_not_found"
    status = 404
    type = "invalid_request_error"
    param = "response_id"

    def __init__(self, response: str) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"The response '{self.response}' is not stored: it was deleted, or evicted for later responses."


class ConversationNotFound(ModelyardError):
    """No conversation with that id is stored, or it has no item with that id.

    Args:
        conversation: id of the conversation.
        item: id of the item; None: the conversation itself is missing.
    """

    code = "conversation_not_found"
    status = 404
    type = "invalid_request_error"
    param = "conversation_id"

    def __init__(self, conversation: str, item: str | None = None) -> None:
        super().__init__(conversation, item)
        self.conversation, self.item = conversation, item

    def __str__(self) -> str:
        if self.item is not None:
            return f"The conversation '{self.conversation}' has no item '{self.item}'. List its items to see their ids."
        return f"The conversation '{self.conversation}' is not stored: it was deleted, or evicted for later ones."


class ActivityNotFound(ModelyardError):
    """No request is known under that id."""

    code = "activity_not_found"
    status = 404
    type = "invalid_request_error"
    param = "activity_id"

    def __init__(self, activity: str) -> None:
        super().__init__(activity)
        self.activity = activity

    def __str__(self) -> str:
        return (
            f"No request is known under '{self.activity}': it is none of this API key, or it ended before the last "
            "1,000 requests or the last start of the server. GET /v1/activity lists those that are."
        )


class ApprovalNotFound(ModelyardError):
    """No call of a tool waits for its approval under that id."""

    code = "approval_not_found"
    status = 404
    type = "invalid_request_error"
    param = "approval_id"

    def __init__(self, approval: str) -> None:
        super().__init__(approval)
        self.approval = approval

    def __str__(self) -> str:
        return (
            f"No call waits for its approval under '{self.approval}': it was decided, its time is over, or its answer "
            "has ended. GET /v1/agent/approvals lists those that wait."
        )
