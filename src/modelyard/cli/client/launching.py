"""How programs are started so that they use a server: their environment and their arguments. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from modelyard.cli.client.find import KEY_VARIABLE

# What clients send where the server takes requests without a key: most refuse to start without one.
_NO_KEY: Final = "modelyard"


@dataclass(frozen=True, slots=True)
class Target:
    """What a program is to use: the URL of the server, without ``/v1``, its key, if it has one, and a model's id."""

    url: str
    model: str
    key: str | None = None

    @property
    def sent_key(self) -> str:
        """The key that the program sends."""
        return self.key or _NO_KEY


@dataclass(frozen=True, slots=True)
class Launch:
    """How a program is started.

    Attributes:
        program: its name on PATH.
        arguments: before those of the user.
        environment: variables that are set.
        unset: variables that would make it use another server.
    """

    program: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()

    def as_shell(self, target: Target, arguments: tuple[str, ...] = ()) -> str:
        """Return a line for a shell that starts it. A key is not shown: the line reads it from its variable."""
        words = [f"-u {name}" for name in self.unset]
        words += [f"{name}={_quoted(value, target.key)}" for name, value in self.environment.items()]
        command = shlex.join((self.program, *self.arguments, *arguments))
        return f"env {' '.join(words)} {command}" if words else command


@dataclass(frozen=True, slots=True)
class LaunchableClient:
    """A program that can be started.

    Attributes:
        what: what it is, in a few words.
        install: the command that installs it.
        launch: returns how it is started.
    """

    what: str
    install: str
    launch: Callable[[Target], Launch]


def _claude(target: Target) -> Launch:
    """Source: Claude Code, docs/en/settings, "Environment variables", and docs/en/llm-gateway."""
    models = ("MODEL", "SMALL_FAST_MODEL", "DEFAULT_OPUS_MODEL", "DEFAULT_SONNET_MODEL", "DEFAULT_HAIKU_MODEL")
    return Launch(
        "claude",
        environment={
            "ANTHROPIC_BASE_URL": target.url,
            "ANTHROPIC_AUTH_TOKEN": target.sent_key,
            **{f"ANTHROPIC_{name}": target.model for name in models},
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        },
        unset=("ANTHROPIC_API_KEY",),
    )


def _codex(target: Target) -> Launch:
    """Source: Codex, docs/config.md, "model_providers"."""
    provider = {"name": "Modelyard", "base_url": f"{target.url}/v1", "wire_api": "responses"}
    if target.key is not None:
        provider["env_key"] = KEY_VARIABLE
    table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in provider.items())
    settings = (f"model_providers.modelyard={{ {table} }}", 'model_provider="modelyard"')
    options = tuple(word for setting in settings for word in ("-c", setting))
    environment = {} if target.key is None else {KEY_VARIABLE: target.key}
    return Launch("codex", (*options, "-m", target.model), environment)


def _opencode(target: Target) -> Launch:
    """Source: opencode, docs/config, "OPENCODE_CONFIG_CONTENT", and docs/providers, "Custom provider"."""
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Modelyard",
        "options": {"baseURL": f"{target.url}/v1", "apiKey": f"{{env:{KEY_VARIABLE}}}"},
        "models": {target.model: {}},
    }
    config = {"provider": {"modelyard": provider}, "model": f"modelyard/{target.model}"}
    return Launch(
        "opencode", environment={"OPENCODE_CONFIG_CONTENT": json.dumps(config), KEY_VARIABLE: target.sent_key}
    )


def _qwen(target: Target) -> Launch:
    """Source: Qwen Code, docs/users/configuration/auth, "OpenAI-compatible API"."""
    environment = {
        "OPENAI_BASE_URL": f"{target.url}/v1",
        "OPENAI_API_KEY": target.sent_key,
        "OPENAI_MODEL": target.model,
    }
    return Launch("qwen", ("--auth-type", "openai"), environment)


def _aider(target: Target) -> Launch:
    """Source: Aider, docs/llms/openai-compat.html."""
    environment = {"OPENAI_API_BASE": f"{target.url}/v1", "OPENAI_API_KEY": target.sent_key}
    return Launch("aider", ("--model", f"openai/{target.model}", "--no-show-model-warnings"), environment)


CLIENTS: Final[Mapping[str, LaunchableClient]] = {
    "claude": LaunchableClient("Claude Code", "npm install -g @anthropic-ai/claude-code", _claude),
    "codex": LaunchableClient("OpenAI's Codex", "npm install -g @openai/codex", _codex),
    "opencode": LaunchableClient("opencode", "npm install -g opencode-ai", _opencode),
    "qwen": LaunchableClient("Qwen Code", "npm install -g @qwen-code/qwen-code", _qwen),
    "aider": LaunchableClient("Aider", "uv tool install aider-chat", _aider),
}
"""The programs by their names on the command line."""


def _quoted(value: str, key: str | None) -> str:
    if key is not None and value == key:
        return f'"${KEY_VARIABLE}"'
    return shlex.quote(value)
