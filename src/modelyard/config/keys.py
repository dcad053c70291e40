"""The API keys of a configuration and of the environment. Secrets leave this file only as digests."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from modelyard.config.key_rules import MAX_PRIORITY, check_key, digest_of
from modelyard.config.wording import shown
from modelyard.errors import ConfigError

if TYPE_CHECKING:
    from modelyard.config.base import PrefixSharing, Scope
    from modelyard.config.schema import Config
    from modelyard.config.server import Key, Server

KEYS_VARIABLE: Final = "MODELYARD_API_KEYS"


SALT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An API key with its rights and limits.

    Attributes:
        name: its name in logs.
        digest: SHA-256 of the key.
        models: ids of the models that it may use; None: all.
        mcp_servers: names of the MCP servers whose tools its requests may use; None: all.
        scopes: what it may do.
        requests_per_minute, tokens_per_minute, max_concurrent, max_context, max_tokens: its limits; None: no limit.
        max_priority: the highest priority that its requests may ask for; None: see ``highest_priority``.
        group: keys of one group may share prefixes; None: it belongs to none.
    """

    name: str
    digest: bytes = field(repr=False)
    models: frozenset[str] | None
    scopes: frozenset[Scope]
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_priority: int | None = None
    max_concurrent: int | None = None
    max_context: int | None = None
    max_tokens: int | None = None
    group: str | None = None
    mcp_servers: frozenset[str] | None = None

    @property
    def highest_priority(self) -> int:
        """The highest priority that its requests may ask for; by default any for a key without restrictions, else 0."""
        if self.max_priority is not None:
            return self.max_priority
        return MAX_PRIORITY if self.models is None and "admin" in self.scopes else 0

    def cache_salt(self, sharing: PrefixSharing) -> str:
        """Return the salt of its prefixes: keys of one salt reuse the prefixes of one another.

        It is a hash of the digest, because names of files with kept prompts contain it.
        """
        match sharing:
            case "all":
                return ""
            case "group" if self.group is not None:
                return _salt(b"group", self.group.encode())
            case _:
                return _salt(b"key", self.digest)


def _salt(kind: bytes, owner: bytes) -> str:
    return hashlib.blake2b(owner, digest_size=SALT_BYTES, person=b"modelyard " + kind).hexdigest()


def read_keys(config: Config, environment: Mapping[str, str] | None = None) -> tuple[AccessKey, ...]:
    """Return all keys of a configuration and of the environment, each once; (): requests need no key.

    Raises:
        ConfigError: a variable holds no valid key, or two keys have the same name.
    """
    environment = os.environ if environment is None else environment
    problems: list[str] = []
    keys = [_full_key(api_key_name(n), key.get_secret_value()) for n, key in enumerate(config.server.api_keys, 1)]
    listed = (key.strip() for key in environment.get(KEYS_VARIABLE, "").split(","))
    for number, key in enumerate(filter(None, listed), 1):
        try:
            keys.append(_full_key(f"env-key-{number}", check_key(key)))
        except ValueError as error:
            problems.append(f"{KEYS_VARIABLE}: item {number} {error}.")
    ids = {name: model.id for model in reversed(config.models) for name in model.names}
    names = names_of_tables(config.server)
    problems += [message for _, message in clashing_names(names, [key.name for key in keys])]
    for number, (table, name) in enumerate(zip(config.server.keys, names, strict=True), 1):
        try:
            keys.append(_limited_key(table, name, ids, environment))
        except ValueError as error:
            problems.append(f"[[server.keys]] {number}: {error}.")
    if problems:
        raise ConfigError("API keys", problems)
    # Of a key that is listed twice the last entry counts, which has the limits.
    return tuple({key.digest: key for key in keys}.values())


def api_key_name(number: int) -> str:
    """Return the name of the ``number``-th of ``api_keys``, counted from 1."""
    return f"api-key-{number}"


def names_of_tables(server: Server) -> list[str]:
    """Return the names of the tables under ``[[server.keys]]``, in their order."""
    return [table.name or f"key-{number}" for number, table in enumerate(server.keys, 1)]


def clashing_names(tables: Sequence[str], others: Collection[str]) -> list[tuple[str, str]]:
    """Return each name that several keys have, with the problem: a log could not tell them apart.

    Args:
        tables: names of the tables under ``[[server.keys]]``.
        others: names of keys outside of tables.
    """
    return [
        (
            name,
            f"The name {shown(name)} belongs to more than one of [[server.keys]]. Give each its own."
            + (" A table without a name has that of its place, such as key-1." if name.startswith("key-") else ""),
        )
        for name, count in Counter(tables).items()
        if count > 1
    ] + [
        (
            name,
            f"The name {shown(name)} of one of [[server.keys]] belongs to another key: those of api_keys are called "
            f"api-key-1 and so on, those of {KEYS_VARIABLE} env-key-1 and so on. Give the table another name.",
        )
        for name in dict.fromkeys(tables)
        if name in others
    ]


def _full_key(name: str, key: str) -> AccessKey:
    """Return a key without restrictions."""
    return AccessKey(name, digest_of(key), None, frozenset(("inference", "read", "admin")))


def _limited_key(key: Key, name: str, ids: Mapping[str, str], environment: Mapping[str, str]) -> AccessKey:
    if key.key_env is None:
        assert key.key is not None
        secret = key.key.get_secret_value()
    else:
        secret = environment.get(key.key_env, "").strip()
        if not secret:
            raise ValueError(f"the environment variable {key.key_env} is not set")
        check_key(secret)
    return AccessKey(
        name,
        digest_of(secret),
        frozenset(ids[name] for name in key.models) if key.models else None,
        frozenset(key.scopes),
        key.requests_per_minute,
        key.tokens_per_minute,
        key.max_priority,
        key.max_concurrent,
        key.max_context,
        key.max_tokens,
        key.group,
        None if key.mcp is None else frozenset(key.mcp),
    )
