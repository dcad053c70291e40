"""Finds settings that are unsafe, alone or together. Pure. docs/security.md describes what is trusted."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from modelyard.config import AccessKey, Config, is_loopback

MIN_KEY_CHARS: Final = 20
"""Shorter keys can be guessed, or found from their digests."""

# A network with a shorter prefix has more addresses than a company's, and so does not consist of proxies.
_MIN_PROXY_PREFIX: Final = {4: 8, 6: 32}


@dataclass(frozen=True, slots=True)
class UnsafeSetting:
    """A setting, or several together, that allow what the operator may not want.

    Attributes:
        name: a stable name, for programs.
        settings: the settings, as written in the TOML file.
        what: who may do what because of them, as a sentence.
        advice: what to set.
    """

    name: str
    settings: str
    what: str
    advice: str


@dataclass(frozen=True, slots=True)
class FileMode:
    """A file that holds secrets: its path and its permission bits."""

    path: Path
    mode: int

    @property
    def is_readable_by_others(self) -> bool:
        """Whether users other than its owner may read it."""
        return bool(self.mode & (stat.S_IRGRP | stat.S_IROTH))


def unsafe_settings(
    config: Config, keys: Sequence[AccessKey], secret_files: Sequence[FileMode] = ()
) -> list[UnsafeSetting]:
    """Return what is unsafe in ``config``.

    Args:
        config: the configuration.
        keys: the API keys; (): requests need none.
        secret_files: the configuration file if it holds keys, and the TLS key.
    """
    return [
        *_access(config, keys),
        *_browsers(config, keys),
        *_files(config, keys),
        *_keys(config, keys),
        *_models(config),
        *(
            UnsafeSetting(
                "readable_secret",
                str(secret.path),
                "Other users of the machine may read the secrets in it.",
                f"chmod 600 {secret.path}",
            )
            for secret in secret_files
            if secret.is_readable_by_others
        ),
    ]


def _access(config: Config, keys: Sequence[AccessKey]) -> Iterator[UnsafeSetting]:
    server = config.server
    if is_loopback(server.host):
        return
    if not keys:
        yield UnsafeSetting(
            "open_to_network",
            f'host = "{server.host}" without api_keys',
            "Everyone who reaches the machine may use its models, unload them, and read what is loaded.",
            'Set api_keys, or host = "127.0.0.1".',
        )
    elif server.ssl_certfile is None and not server.trusted_proxies:
        yield UnsafeSetting(
            "keys_in_the_clear",
            f'host = "{server.host}" without ssl_certfile',
            "Keys, prompts and answers cross the network unencrypted.",
            "Set ssl_certfile and ssl_keyfile, or let a proxy end TLS and list it in trusted_proxies.",
        )


def _browsers(config: Config, keys: Sequence[AccessKey]) -> Iterator[UnsafeSetting]:
    server = config.server
    if "*" in server.cors_origins and not keys:
        yield UnsafeSetting(
            "any_page",
            'cors_origins = ["*"] without api_keys',
            "Every web page that is opened on a machine that reaches the server may use it.",
            "List the origins of the pages that are to use it, or set api_keys.",
        )
    if "*" in server.allowed_hosts and not keys:
        yield UnsafeSetting(
            "any_host",
            'allowed_hosts = ["*"] without api_keys',
            "A web page may have its own name lead to this server, and use it as if it were its own (DNS rebinding).",
            "List the names that clients use, or set api_keys.",
        )
    for network in server.trusted_proxies:
        parsed = ip_network(network, strict=False)
        if parsed.prefixlen < _MIN_PROXY_PREFIX[parsed.version]:
            yield UnsafeSetting(
                "any_proxy",
                f'trusted_proxies = ["{network}"]',
                "Clients may claim any address, and so have more connections than their share.",
                "List the addresses of the proxies alone.",
            )


def _files(config: Config, keys: Sequence[AccessKey]) -> Iterator[UnsafeSetting]:
    server = config.server
    for name, folders in (("image_folders", server.image_folders), ("audio_folders", server.audio_folders)):
        for folder in folders:
            if folder == Path(folder.anchor) or folder == Path.home():
                yield UnsafeSetting(
                    "wide_folder",
                    f'{name} = ["{folder}"]',
                    "Every file below it of that kind may be read by a request.",
                    "Name the folders that hold nothing else.",
                )
    reached = not is_loopback(server.host) or any(key.models is not None or "admin" not in key.scopes for key in keys)
    for name, is_set in (
        ("allow_private_image_urls", server.allow_private_image_urls),
        ("allow_private_audio_urls", server.allow_private_audio_urls),
    ):
        if is_set and reached:
            yield UnsafeSetting(
                "private_urls",
                f"{name} = true",
                "Clients may have this machine fetch from its own network, which they may not reach themselves.",
                "Leave it out, or serve those files from a folder that is listed in image_folders or audio_folders.",
            )


def _keys(config: Config, keys: Sequence[AccessKey]) -> Iterator[UnsafeSetting]:
    server = config.server
    if len(keys) > 1 and server.share_prefixes == "all":
        yield UnsafeSetting(
            "shared_prefixes",
            'share_prefixes = "all"',
            "A client can find out what other keys sent, by how fast the beginning of a prompt is answered.",
            'Set "key" or "group", unless all keys trust each other.',
        )
    written = [*(key for key in server.api_keys), *(key.key for key in server.keys if key.key is not None)]
    short = sum(
        len(secret.get_secret_value()) < MIN_KEY_CHARS and not secret.get_secret_value().startswith("sha256:")
        for secret in written
    )
    if short:
        yield UnsafeSetting(
            "short_key",
            "api_keys or [[server.keys]]",
            f"{short} of the keys {'has' if short == 1 else 'have'} less than {MIN_KEY_CHARS} characters: they can be "
            "guessed.",
            "Make random ones: openssl rand -hex 24",
        )


def _models(config: Config) -> Iterator[UnsafeSetting]:
    for model in config.models:
        isolation = model.isolation or config.runtime.isolation
        if isolation == "thread" and not config.runtime.trial:
            yield UnsafeSetting(
                "untried_on_a_thread",
                f'{model.id}: trial = false and isolation = "thread"',
                "A damaged file of this model ends the server, and with it the answers of all models.",
                'Leave trial out, or set isolation = "process".',
            )
