"""The bounds of all that a request can make grow, as the table of docs/security.md. Values come from the code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mcp.client.streamable_http import DEFAULT_MAX_SSE_EVENT_SIZE

from modelyard.agent import approvals, calls, kept_turns, request
from modelyard.api.llama_cpp import tokenize as tokens
from modelyard.api.mcp import sessions
from modelyard.api.media import audio, decoders, fetch, images, load
from modelyard.api.middleware import body_intake
from modelyard.api.openai import embeddings, sampling, schema, tools
from modelyard.api.openai.responses import background, records
from modelyard.api.serving import bounded_items, form, json_body, request_memory
from modelyard.api.serving import request_servers as named_servers
from modelyard.config import bounded_read, mcp_rules
from modelyard.engine.chat import grammar, template_processes
from modelyard.engine.guidance import compiler, trial
from modelyard.engine.input import tokenizer_time
from modelyard.errors import MAX_MESSAGE_CHARS
from modelyard.inprocess.http_server import limits
from modelyard.mcp import connection, request_servers, schemas, session
from modelyard.mcp.transports import lines, stderr_log, throttle
from modelyard.system.bounded import pool
from modelyard.yard import from_config, operations


@dataclass(frozen=True, slots=True)
class Bound:
    """One row: what may grow, how far, and what is answered beyond it."""

    what: str
    bound: str
    beyond: str


def _size(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size:,} bytes"


def _number(number: int) -> str:
    return f"{number:,}"


def _seconds(seconds: float) -> str:
    return f"{seconds:g} s"


_CLOSED: Final = "; the connection is closed"
_INVALID: Final = "400 `invalid_request`"

CONNECTIONS: Final = (
    Bound(
        "Connections",
        f"{_number(limits.MAX_CONNECTIONS)}, or what the limit of open files leaves; `max_connections`",
        "503 `too_many_connections`, after those without a complete request gave way",
    ),
    Bound("Connections of one address", "three quarters; `max_connections_per_address`", "503 `too_many_connections`"),
    Bound("Head: bytes", _size(limits.MAX_HEAD_BYTES), "431 `request_head_too_large`" + _CLOSED),
    Bound("Head: lines", _number(limits.MAX_HEADER_LINES), "431 `request_head_too_large`" + _CLOSED),
    Bound("URL", _size(limits.MAX_URL_BYTES), "414 `uri_too_long`" + _CLOSED),
    Bound("Time of a head, with the TLS handshake", _seconds(limits.MAX_HEAD_S), "408 `request_timeout`" + _CLOSED),
    Bound(
        "Time of a body",
        f"{_seconds(limits.MAX_BODY_PAUSE_S)} between two pieces; {_size(limits.MIN_BODY_BYTES_PER_S)}/s on average "
        f"after {_seconds(limits.BODY_GRACE_S)}",
        "408 `request_timeout`" + _CLOSED,
    ),
    Bound("Time between two requests", _seconds(limits.MAX_IDLE_S), "the connection is closed"),
    Bound(
        "Time without reading the answer",
        f"{_seconds(limits.STALL_S)} at less than {limits.MIN_READ_BYTES_PER_S} bytes/s",
        "the connection is closed",
    ),
    Bound("Requests on a connection that wait", _number(limits.MAX_PIPELINED), "it is not read further"),
    Bound(
        "What stands around a chunked body",
        f"{_size(limits.MAX_FRAMING_BYTES)} and {limits.MAX_FRAMING_SHARE:.0%} of the body",
        _INVALID + _CLOSED,
    ),
    Bound("Trailers", "none", _INVALID + _CLOSED),
    Bound("Bodies that are arriving, together", _size(limits.MAX_ARRIVING_BYTES), "the oldest give way"),
)

BODIES: Final = (
    Bound("Body", _size(body_intake.MAX_BODY_BYTES), "413 `request_too_large`"),
    Bound("Body that names a model", _size(body_intake.MAX_SMALL_BODY_BYTES), "413 `request_too_large`"),
    Bound(
        "Memory of all bodies and what is parsed from them",
        f"{_size(request_memory.MIN_BYTES)}, or 1/{request_memory.MACHINE_SHARE} of the machine's memory",
        f"503 `server_overloaded` after {_seconds(request_memory.MAX_WAIT_S)} of waiting",
    ),
    Bound("JSON: values", _number(json_body.MAX_VALUES), _INVALID),
    Bound("JSON: objects", _number(json_body.MAX_OBJECTS), _INVALID),
    Bound("JSON: lists", _number(json_body.MAX_LISTS), _INVALID),
    Bound("JSON: fields of objects", _number(json_body.MAX_FIELDS), _INVALID),
    Bound("JSON: objects of all requests together", _number(request_memory.MAX_OBJECTS_HELD), "as for memory"),
    Bound("JSON: depth", str(json_body.MAX_DEPTH), _INVALID),
    Bound("Messages", _number(bounded_items.MAX_MESSAGES), _INVALID),
    Bound("Parts of a message", _number(bounded_items.MAX_PARTS), _INVALID),
    Bound("Calls in a message", _number(bounded_items.MAX_CALLS), _INVALID),
    Bound("Tools", _number(tools.MAX_TOOLS), _INVALID),
    Bound("Stops; characters of one", f"{sampling.MAX_STOPS}; {_number(sampling.MAX_STOP_LENGTH)}", _INVALID),
    Bound("`logit_bias`", _number(sampling.MAX_BIASES), _INVALID),
    Bound("Choices; prompts of a request", f"{schema.MAX_CHOICES}; {schema.MAX_PROMPTS}", _INVALID),
    Bound("Texts to embed or rank", _number(embeddings.MAX_INPUTS), _INVALID),
    Bound("Token ids to spell", _number(tokens.MAX_IDS), _INVALID),
    Bound("Name of a model", f"{schema.MAX_NAME_LENGTH} characters", _INVALID),
    Bound("Parts of a form; a field", f"{form.MAX_PARTS}; {_size(form.MAX_FIELD_LENGTH)}", _INVALID),
    Bound("Message at `/mcp`", _size(sessions.MAX_MESSAGE_BYTES), "413 `request_too_large`"),
    Bound(
        "MCP sessions; seconds without a request",
        f"{sessions.MAX_SESSIONS}; {sessions.MAX_IDLE_S:,.0f}",
        "the one that was idle for longest ends; 503 `too_many_connections` where all are in use",
    ),
    Bound("Subscriptions of an MCP session", _number(sessions.MAX_SUBSCRIPTIONS), "an error of the protocol"),
    Bound("Message of an error", f"{_number(MAX_MESSAGE_CHARS)} characters", "it is cut"),
)

MEDIA: Final = (
    Bound("Image: bytes", _size(images.MAX_BYTES), _INVALID),
    Bound("Image: pixels", _number(images.MAX_PIXELS), _INVALID),
    Bound(
        "Image: decoding",
        f"{_seconds(decoders.MAX_DECODE_S)} of the processor, {decoders.MAX_IMAGE_MEMORY_BYTES >> 20:,} MiB",
        _INVALID,
    ),
    Bound("Sound: bytes", _size(audio.MAX_BYTES), _INVALID),
    Bound("Sound: seconds", "`max_audio_seconds`", _INVALID),
    Bound(
        "Sound: decoding",
        f"{_seconds(decoders.MAX_DECODE_S)} of the processor and 1% of `max_audio_seconds`; "
        f"{_size(decoders.SOUND_MEMORY_BYTES)} and four times its samples",
        _INVALID,
    ),
    Bound("Files that are decoded at a time", str(decoders.MAX_AT_ONCE), "they wait"),
    Bound(
        "Time to load the files of a request",
        f"{_seconds(load.MAX_WAIT_S)}, and {_seconds(decoders.MAX_DECODE_S)} for each file after the first",
        "503 `media_undecoded`",
    ),
    Bound("Time to fetch a URL", _seconds(fetch.TIMEOUT_S), _INVALID),
    Bound("Redirects", str(fetch.MAX_REDIRECTS), _INVALID),
)

WORK: Final = (
    Bound("Grammar", f"{_number(grammar.MAX_GRAMMAR_LENGTH)} characters", _INVALID),
    Bound(
        "Grammar, compiled",
        f"{_seconds(trial.COMPILE_S)} of the processor, {_size(trial.COMPILE_BYTES)}, half a stack",
        _INVALID,
    ),
    Bound(
        "Grammar: size; states",
        f"{_number(compiler.LIMITS.max_grammar_size)}; {_number(compiler.LIMITS.max_lexer_states)}",
        _INVALID,
    ),
    Bound(
        "Chat template",
        f"{_seconds(template_processes.RENDER_S)} of the processor, {_size(template_processes.RENDER_BYTES)}",
        _INVALID,
    ),
    Bound("Tokenising a text", f"{_seconds(tokenizer_time.CPU_S)} of the processor", _INVALID),
    Bound(
        "Processes for each of these; time to wait for one",
        f"{pool.MAX_PROCESSES}; {_seconds(pool.WAIT_S)}",
        "503 with the reason",
    ),
    Bound("Requests that wait for a model", _number(from_config.WAITING_ROOM), "429 `queue_full`"),
    Bound("Calls that wait for a load", _number(operations.MAX_WAITING_LOADS), "429 `queue_full`"),
    Bound("Responses in the background", str(background.MAX_IN_BACKGROUND), "429 `queue_full`"),
    Bound(
        "Responses that are kept",
        f"{_number(records.MAX_RECORDS)}, {_size(records.MAX_DISK_BYTES)} on disk or "
        f"{_size(records.MAX_MEMORY_BYTES)} in memory, {records.MAX_AGE_S / 86400:.0f} days",
        "the oldest of the owner that has most are dropped",
    ),
    Bound("Configuration file", _size(bounded_read.MAX_CONFIG_BYTES), "400 `config_error`"),
)

TOOLS: Final = (
    Bound("Rounds of an answer", f"`max_tool_rounds`, {request.MAX_TOOL_ROUNDS} at most", "the model has to answer"),
    Bound(
        "Calls of a turn; of an answer",
        f"{calls.MAX_CALLS_OF_TURN}; {_number(calls.MAX_CALLS_OF_ANSWER)}",
        "they are not run, which the model reads",
    ),
    Bound("Arguments of a call", f"{calls.MAX_ARGUMENT_DEPTH} levels", "it is not run, which the model reads"),
    Bound(
        "Calls that wait for an approval; of one key",
        f"{_number(approvals.MAX_WAITING)}; {approvals.MAX_WAITING_OF_OWNER}",
        "they are denied",
    ),
    Bound("Time of an approval", "`approval_timeout`", "the call is denied"),
    Bound(
        "Rounds that are kept for the client's next request",
        f"those of {_number(kept_turns.MAX_KEPT)} answers, {_size(kept_turns.MAX_KEPT_BYTES)}, "
        f"{1 / kept_turns.OWNER_SHARE:.0%} of it for one key, {kept_turns.KEPT_S / 60:.0f} minutes",
        "those that were not used for longest are dropped",
    ),
)

MCP: Final = (
    Bound(
        "Message of a server",
        f"{_size(lines.MAX_MESSAGE_BYTES)}; {_size(DEFAULT_MAX_SSE_EVENT_SIZE)} over server-sent events alone",
        "an error that the model reads",
    ),
    Bound("Messages of a program, or of a WebSocket, in a second", _number(throttle.MAX_MESSAGES_PER_S), "they wait"),
    Bound("Tools of a server", _number(session.MAX_TOOLS), "the rest is left out"),
    Bound(
        "Schema of a tool",
        f"{_size(schemas.MAX_SCHEMA_BYTES)}, {schemas.MAX_SCHEMA_DEPTH} levels",
        "the tool is left out",
    ),
    Bound("Description of a tool", f"{_number(session.MAX_DESCRIPTION_CHARS)} characters", "it is cut"),
    Bound("Text of a result", "`max_result`", "it is cut, and says so"),
    Bound("Time of a call", "`tool_timeout`", "an error that the model reads"),
    Bound("Calls at a time", "`max_concurrent_calls`", "they wait, within the time of a call"),
    Bound("Time to connect", _seconds(connection.CONNECT_S), "it is tried again"),
    Bound("Time to connect a server that a request names", _seconds(request_servers.CONNECT_S), _INVALID),
    Bound(
        "Such servers of a request; URL and headers of one",
        f"{named_servers.MAX_REQUEST_SERVERS}; {_number(request_servers.MAX_URL_CHARS)} characters and "
        f"{request_servers.MAX_HEADERS}",
        _INVALID,
    ),
    Bound("Lines of a program's standard error in a minute", str(stderr_log.MAX_LINES_PER_MINUTE), "they are counted"),
    Bound("Servers of a configuration", str(mcp_rules.MAX_SERVERS), "400 `config_error`"),
)

TABLES: Final[dict[str, tuple[Bound, ...]]] = {
    "Connections, before a key is asked for": CONNECTIONS,
    "Bodies": BODIES,
    "Images and sound": MEDIA,
    "Work": WORK,
    "Tools that the server runs": TOOLS,
    "MCP servers": MCP,
}


def render_bounds() -> str:
    """All tables as Markdown."""
    return "\n\n".join(_table(title, rows) for title, rows in TABLES.items())


def _table(title: str, rows: tuple[Bound, ...]) -> str:
    lines = [f"### {title}", "", "| What | At most | Beyond it |", "| --- | --- | --- |"]
    return "\n".join((*lines, *(f"| {row.what} | {row.bound} | {row.beyond} |" for row in rows)))
