"""Descriptions of the fields of the endpoints about what happened to requests and models; see ``field_docs``."""

from __future__ import annotations

from typing import Final

_ACTIVITY: Final = {
    "id": "Identifies it, also among those of earlier runs of the server.",
    "request_id": "The `x-request-id` of the HTTP request; null for one of a Python program. Choices and rounds of one "
    "HTTP request have it in common.",
    "key": "Name of the API key; null: there was none.",
    "dialect": "`openai`, `anthropic`, `ollama`, `llama.cpp`, `rerank` or `mcp`; `python` for a request of a Python "
    "program.",
    "path": "The path of the HTTP request; null for one of a Python program.",
    "kind": "What is computed: `text`, `vectors`, `scores` of documents, or the `tokens` of a text.",
    "stream": "Whether the answer is sent while it is computed.",
    "state": "`waiting`, `loading` (its model loads), `prefill` (its prompt is computed), `decode` (its answer is), "
    "`suspended`; or how it ended: `done`, `failed` or `cancelled`.",
    "arrived_at": "When it arrived.",
    "granted_at": "When it was first sent to the engine of its model.",
    "first_token_at": "When the first token of its answer came.",
    "ended_at": "When it ended.",
    "prompt_tokens": "Tokens of its prompt; 0 until they are counted.",
    "cached_tokens": "Tokens of the prompt that were computed before.",
    "answer_tokens": "Tokens of its answer up to now.",
    "tokens_per_second": "Speed of the answer after its first token; null before its second one.",
    "finish_reason": "`stop` or `length`; null unless it is `done`.",
    "error": "Code of the error that it ended with; null: none.",
}

ACTIVITY_FIELDS: Final = {
    **{f"Activity.{name}": meaning for name, meaning in _ACTIVITY.items()},
    # A request by itself has the fields of its entry in the list.
    **{f"ActivityDetail.{name}": meaning for name, meaning in _ACTIVITY.items()},
    "ActivityDetail.error_message": "The error in words; null: none.",
    "ActivityDetail.phases": "What it waited for and what was computed, in order.",
    "ActivityDetail.prompt": "The prompt as the model read it, without images and sound; null where it is not kept any "
    "more, or the model is not loaded; omitted unless `record_texts` is set in `[server]`.",
    "ActivityDetail.answer": "The answer as the model wrote it, up to now; null and omitted as `prompt`.",
    "ActivityPhase.phase": "What was done.",
    "ActivityPhase.began_at": "When it began, in seconds since 1970.",
    "ActivityPhase.ended_at": "When it ended; null: it goes on.",
    "ActivityPhase.text": "What the request waited for or what was computed, as a sentence.",
    "ActivityPhase.models": "Other models that the sentence names.",
    "ActivityList.data": "The requests.",
    "ResidencyInterval.state": "As `state` in `GET /v1/server`.",
    "ResidencyInterval.began_at": "When it began, in seconds since 1970.",
    "ResidencyInterval.ended_at": "When it ended; null: it goes on.",
    "ResidencyInterval.bytes": "Memory that the model took of the `host` and of each device; expected, while it loads.",
    "ResidencyInterval.cause": "Why it began, in a word: `asked` (a request, load or unload), `loaded`, `resized`, "
    "`idle`, `room` (for another model), `budget`, `move` (to a faster placement), `retired`, `closing`, `changed` "
    "(a file was written over), `failed` or `died`; null where the state says as much.",
    "ResidencyInterval.reason": "Why it began, in words; null where the cause says as much.",
    "ModelHistory.model_id": "Id of the model.",
    "ModelHistory.intervals": "What happened, in order; before the first one the model was unloaded.",
    "ModelHistoryList.as_of": "The present time of the server, in seconds since 1970.",
    "ModelHistoryList.data": "The models in the order of the configuration, then those that were removed.",
}
