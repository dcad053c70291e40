"""POST /v1/responses/compact: a conversation becomes the messages of its user and a summary of the rest.

Source: https://platform.openai.com/docs/api-reference/responses/compact.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from modelyard.api.openai.responses.calls import new_id
from modelyard.api.openai.responses.opaque import encoded
from modelyard.api.openai.responses.response_object import usage_object
from modelyard.api.openai.responses.schema import CompactRequest
from modelyard.api.openai.responses.services import Input, input_of
from modelyard.api.openai.responses.truncation import oldest_turns, truncated
from modelyard.api.openapi.answers_responses import CompactedResponse
from modelyard.api.request_context import RequestContext
from modelyard.api.services import Services
from modelyard.api.serving.json_response import JsonResponse
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.reasoning import reasoning_of
from modelyard.api.serving.wait_options import wait_options_of
from modelyard.errors import EngineError, InvalidRequest
from modelyard.protocol.prompts import Chat
from modelyard.yard.requests.output_reader import OutputReader
from modelyard.yard.requests.requests import Request

MAX_SUMMARY_TOKENS: Final = 2048

_TASK: Final = (
    "Summarise our conversation so far, so that the work can be continued from your summary alone: the goal, what was "
    "decided and done, names, paths and numbers that are still needed, and what remains to be done. Write the summary "
    "only."
)

# Reasoning would use up the tokens of the summary.
_OPTIONS: Final = reasoning_of(is_on=False).options

router = APIRouter(route_class=JsonRoute)


@router.post("/v1/responses/compact", response_model=None)
async def compact_response(body: CompactRequest, http: HttpRequest) -> Response:
    """Have the model summarise a conversation that becomes too long; the answer is the input of the next request."""
    services = Services.of(http)
    sent = await input_of(body, http)
    if not sent.conversation.messages:
        raise InvalidRequest("'input' is empty: give the conversation, or the id of its last response.", "input")
    system = [{"role": "system", "content": body.instructions}] if body.instructions else []
    chat = Chat((*system, *sent.conversation.messages, {"role": "user", "content": _TASK}), options=_OPTIONS)
    request = Request(prompt=chat, model=body.model, max_tokens=MAX_SUMMARY_TOKENS)
    request = replace(request, wait_options=wait_options_of(http, body.keep_alive))
    request = await services.media.loaded(request, http.receive)
    context = RequestContext.of(http.scope)
    context.ignore(f"input[{index}] ({kind})" for index, kind in sent.conversation.left_out)
    return JsonResponse(partial(_compacted, services, request, sent, context))


async def _compacted(services: Services, request: Request, sent: Input, context: RequestContext) -> bytes:
    """Compute the body of the answer.

    Raises:
        EngineError: the model wrote no summary.
    """
    # A conversation is often compacted because it has become too long.
    request, left_out = await truncated(services.yard, request, tail=1)
    context.note(oldest_turns(left_out))
    assert isinstance(request.prompt, Chat)
    async with services.yard.generate(request) as generation:
        text = await generation.text()
        finished = generation.outcome()
        summary = OutputReader(generation, request.prompt).whole(text, finished).content
    if not summary.strip():
        # An empty summary would take the place of the conversation.
        raise EngineError(generation.model, "it wrote no summary of the conversation, which is unchanged")
    items = (*sent.before, *sent.items)
    users = [dict(item) for item in items if _is_of_user(item)]
    compaction = {"type": "compaction", "id": new_id("cmp"), "encrypted_content": encoded("summary", summary)}
    answer: CompactedResponse = {
        "id": new_id("resp"),
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": [*users, compaction],
        "usage": usage_object(finished.usage),
    }
    return orjson.dumps(answer)


def _is_of_user(item: Mapping[str, Any]) -> bool:
    return item.get("type") == "message" and item.get("role") == "user"
