"""``[server]`` and ``[[server.keys]]``: where the HTTP server listens, who may use it, and what it logs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, Strict, ValidationInfo, field_validator

from modelyard.config.base import Items, PrefixSharing, Scope, Table, Text
from modelyard.config.counts import THOUSANDS_EXAMPLES, TOKENS_EXAMPLES, read_thousands, read_tokens
from modelyard.config.hosts import (
    HOST_WORDING,
    NETWORK_WORDING,
    ORIGIN_WORDING,
    check_host,
    check_network,
    check_origin,
)
from modelyard.config.key_rules import KEY_WORDING, MAX_PRIORITY, NAME_WORDING, check_key, check_key_name
from modelyard.config.paths import absolute, base_of, own_cache

_MAX_TOKENS = 2**31 - 1

LogFormat = Literal["text", "json"]
ResponseKeep = Literal["disk", "memory"]

Secret = Annotated[
    SecretStr,
    AfterValidator(lambda key: SecretStr(check_key(key.get_secret_value()))),
    Field(min_length=1, json_schema_extra={"wording": KEY_WORDING}),
]

HostPattern = Annotated[Text, AfterValidator(check_host), Field(json_schema_extra={"wording": HOST_WORDING})]
Origin = Annotated[Text, AfterValidator(check_origin), Field(json_schema_extra={"wording": ORIGIN_WORDING})]
Network = Annotated[Text, AfterValidator(check_network), Field(json_schema_extra={"wording": NETWORK_WORDING})]


class Key(Table):
    """``[[server.keys]]``: one API key, and what it may be used for. It has a ``key`` or a ``key_env``."""

    name: Annotated[str, AfterValidator(check_key_name)] | None = Field(
        default=None,
        json_schema_extra={"wording": NAME_WORDING},
        description="Name of the key in the access log. Unset: `key-1` for the first table, and so on.",
    )
    key: Secret | None = Field(
        default=None,
        json_schema_extra={"wording": KEY_WORDING},
        description="The key, or `sha256:` and the hexadecimal SHA-256 digest of it.",
    )
    key_env: Text | None = Field(
        default=None, description="Environment variable that holds the key, or its digest, in place of `key`."
    )
    models: Items[Text] = Field(
        default=(), description="Ids or aliases of the models that it may use and see. Empty: all."
    )
    mcp: Items[Text] | None = Field(
        default=None,
        description="Names of the MCP servers whose tools may be called for its requests. Unset: all. `[]`: none.",
    )
    scopes: Items[Scope] = Field(
        default=("inference", "read"),
        description="What it may do: send requests to models (`inference`), read the state of the server (`read`: "
        "models, metrics), load and unload models (`admin`).",
    )
    requests_per_minute: int | None = Field(
        default=None, ge=1, le=10**9, description="Requests that it may send in a minute. Unset: any number."
    )
    tokens_per_minute: Annotated[int, Field(ge=1, le=10**12), BeforeValidator(read_thousands)] | None = Field(
        default=None,
        json_schema_extra={"wording": f"a whole number from 1 to {10**12}, or {THOUSANDS_EXAMPLES}"},
        description="Tokens, of prompts and answers together, that it may use in a minute. Unset: any number.",
    )
    max_concurrent: int | None = Field(
        default=None,
        ge=1,
        le=10**6,
        description="Answers that may be computed for it at the same time; each choice of a request with `n` counts, "
        "and so does a response in the background. Unset: any number.",
    )
    max_priority: int | None = Field(
        default=None,
        ge=-MAX_PRIORITY,
        le=MAX_PRIORITY,
        description="The highest `X-Priority` that it may ask for; a higher one is lowered to it, or to the model's "
        "own priority where that is higher. Unset: `0`, and `100` for a key with the scope `admin` and all models, as "
        "those of `api_keys` are.",
    )
    max_context: Annotated[int, Field(ge=1, le=_MAX_TOKENS), BeforeValidator(read_tokens)] | None = Field(
        default=None,
        json_schema_extra={"wording": f"a whole number from 1 to {_MAX_TOKENS}, or {TOKENS_EXAMPLES}"},
        description="Maximum number of tokens of a prompt and its answer together. Unset: the model's context.",
    )
    max_tokens: Annotated[int, Field(ge=1, le=_MAX_TOKENS), BeforeValidator(read_tokens)] | None = Field(
        default=None,
        json_schema_extra={"wording": f"a whole number from 1 to {_MAX_TOKENS}, or {TOKENS_EXAMPLES}"},
        description="Maximum number of tokens of an answer. A request for more is refused; one that names no number "
        "gets this one. Unset: any number.",
    )
    group: Annotated[str, AfterValidator(check_key_name)] | None = Field(
        default=None,
        json_schema_extra={"wording": NAME_WORDING},
        description='Keys of one group share prefixes where `share_prefixes` is `"group"`. Unset: it is alone.',
    )


class Server(Table):
    """``[server]``: where the HTTP server listens, and who may use it."""

    host: Text = Field(
        default="127.0.0.1",
        description="Address to listen on. `0.0.0.0` is every network interface of the machine.",
    )
    port: int = Field(default=1234, ge=0, le=65535, description="TCP port. `0` takes any free port.")
    mcp_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="TCP port of a second listener, on which Modelyard is an MCP server and nothing else. Unset: "
        "there is none; `/mcp` on `port` is the same server.",
    )
    max_tool_rounds: int = Field(
        default=32,
        ge=1,
        le=256,
        description="How often, in one answer, a model may call tools that the server runs, and go on with their "
        "results. Requests may lower it.",
    )
    api_keys: Items[Secret] = Field(
        default=(),
        description="Keys of which a client must send one as `Authorization: Bearer <key>`, or their digests as "
        "`sha256:<hex>`. They may do everything. The variable `MODELYARD_API_KEYS` holds more of them, separated by "
        "commas. Without any key, requests need none.",
    )
    keys: Items[Key] = Field(default=(), description="Keys with limits, one table each.")
    share_prefixes: PrefixSharing = Field(
        default="key",
        description="Which requests may reuse the computed prefixes of one another: those of the same key, those of "
        "the same `group`, or all. How fast an answer comes reveals whether its prefix was computed before, so only "
        "keys that trust each other should share. Without keys all requests share.",
    )
    max_connections: int | None = Field(
        default=None,
        ge=16,
        le=10**6,
        description="Connections that may be open at the same time. Unset: what the process's limit of open files "
        "allows beside its own files, at most 4096.",
    )
    max_connections_per_address: int | None = Field(
        default=None,
        ge=1,
        le=10**6,
        description="Connections that one client address may have open; an IPv6 network of 64 bits counts as one "
        "address, and trusted proxies do not count. Unset: three quarters of `max_connections`.",
    )
    allowed_hosts: Items[HostPattern] = Field(
        default=(),
        description="Host names under which clients may address the server, beside `localhost`, IP addresses and the "
        'machine\'s own names; `"*.example.org"` is every name below `example.org`, `"*"` is every name. Where it is '
        "empty, a server that has keys and is reachable from the network accepts every name.",
    )
    cors_origins: Items[Origin] = Field(
        default=(),
        description='Origins of web pages that may use the server, such as `"https://chat.example"`; `"*"` is all. '
        "Empty: none.",
    )
    trusted_proxies: Items[Network] = Field(
        default=(),
        description='Addresses or networks, such as `["127.0.0.1", "10.0.0.0/8"]`, of proxies whose `X-Forwarded-For`, '
        "`-Proto` and `-Host` are trusted. Empty: no proxy's.",
    )
    ssl_certfile: Annotated[Path, Strict(False)] | None = Field(
        default=None,
        description="PEM file of a certificate with its chain: the server speaks HTTPS. Relative to the TOML file.",
    )
    ssl_keyfile: Annotated[Path, Strict(False)] | None = Field(
        default=None, description="PEM file of the certificate's private key. Unset: it is in `ssl_certfile`."
    )
    strict: bool = Field(
        default=False,
        description="Refuse a request with a part that would have no effect, such as a field that Modelyard does not "
        "know. Otherwise such parts are listed in the header `x-modelyard-ignored` of the answer.",
    )
    disable_access_log: bool = Field(default=False, description="Write no line for each request.")
    access_log_format: LogFormat = Field(default="text", description="How the lines of the access log are written.")
    access_log_health: bool = Field(default=False, description="Log requests for health and metrics, too.")
    disable_request_id_header: bool = Field(
        default=False, description="Send no `x-request-id`, which otherwise is the client's, or a new one."
    )
    record_texts: bool = Field(
        default=False,
        description="Keep prompts and answers of the last requests in memory and show them in `GET /v1/activity/{id}`: "
        "to each key its own, and to keys with the scope `admin` all.",
    )
    ui: bool = Field(
        default=True,
        description="Serve the page at `/ui`, to which `/` sends browsers. It needs no key; what it shows does.",
    )
    disable_metrics: bool = Field(default=False, description="Serve no `/metrics`.")
    image_folders: Items[Annotated[Path, Strict(False)]] = Field(
        default=(),
        description="Folders with images that requests may name, as `file:///…` or by their absolute paths. Relative "
        "to the TOML file; empty: no local file is read.",
    )
    allow_private_image_urls: bool = Field(
        default=False,
        description="Fetch images also from this machine and its network, for every client. Otherwise images are "
        "fetched from public internet addresses only.",
    )
    audio_folders: Items[Annotated[Path, Strict(False)]] = Field(
        default=(), description="Folders with audio files that requests may name, as in `image_folders`."
    )
    allow_private_audio_urls: bool = Field(
        default=False, description="Fetch sound also from this machine and its network, as `allow_private_image_urls`."
    )

    keep_responses: ResponseKeep = Field(
        default="disk",
        description="Where the responses and conversations that clients store are kept, with their input: `disk` keeps "
        "them over a restart, `memory` does not. Clients that send `store: false` have nothing kept.",
    )
    responses_dir: Annotated[Path, Strict(False)] | None = Field(
        default=None,
        description="Folder of responses and conversations on disk, one file for each address that a server listens "
        "on. Relative to the TOML file; unset: `modelyard/responses` in the user's cache folder.",
    )

    def responses_file(self, host: str, port: int) -> Path | None:
        """Return the file of the responses of a server at this address; None: they are kept in memory.

        A server that listens on any free port does not find its responses again, so they are in memory, too.
        """
        if self.keep_responses == "memory" or port == 0:
            return None
        folder = self.responses_dir or own_cache() / "responses"
        return folder / f"{re.sub('[^0-9A-Za-z.-]', '_', host)}_{port}.sqlite"

    @field_validator("image_folders", "audio_folders")
    @classmethod
    def _make_absolute(cls, paths: tuple[Path, ...], info: ValidationInfo) -> tuple[Path, ...]:
        return tuple(absolute(path, base_of(info.context)) for path in paths)

    @field_validator("ssl_certfile", "ssl_keyfile", "responses_dir")
    @classmethod
    def _make_file_absolute(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else absolute(path, base_of(info.context))
