"""The rules about models that other servers have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from modelyard.config.tables import label
from modelyard.config.wording import shown
from modelyard.errors.configuration import ConfigProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelyard.config.model import Model

_OF_LOCAL_MODELS: Final = (
    *("dtype", "chat_template", "tool_format", "reasoning_format", "pinned", "idle_unload_seconds", "weight"),
    *("isolation", "draft", "quantization", "format", "device", "adapters"),
)
"""Keys that say something of files, memory or engines, of which a remote model has none here."""

_OF_REMOTE_MODELS: Final = ("remote_model", "api_key_env", "remote_timeout_seconds")


def keys_of_other_models(models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Refuse keys of local models in remote ones, and the other way round: they would have no effect."""
    problems = []
    for number, model in models.items():
        refused = _OF_LOCAL_MODELS if model.is_remote else _OF_REMOTE_MODELS
        why = (
            "has no effect on a model with 'remote', which another server has."
            if model.is_remote
            else "needs 'remote', the address of the server that has the model."
        )
        problems += [
            ConfigProblem(
                f"{key} {why}",
                "Remove it.",
                table=label(("models",), number, model.model_id),
                location=("models", number - 1, key),
                related=(("models", number - 1, "remote"),),
            )
            for key in refused
            if key in model.model_fields_set
        ]
    return problems


def addresses_with_users(models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Refuse user names and passwords in addresses, which logs and listings show."""
    return [
        ConfigProblem(
            "remote must have no user name and no password in an address.",
            "Put the key of the server into an environment variable, and name that in api_key_env.",
            table=label(("models",), number, model.model_id),
            location=("models", number - 1, "remote"),
        )
        for number, model in models.items()
        if any("@" in urlsplit(address).netloc for address in model.remote)
    ]


def remote_drafts(models: Mapping[int, Model]) -> list[ConfigProblem]:
    """Require that draft models are on this machine."""
    remote = {name for model in models.values() if model.is_remote for name in model.names}
    return [
        ConfigProblem(
            f"draft {shown(model.draft)} is a model that another server has, which cannot draft for one here.",
            "Name a model of this machine.",
            table=label(("models",), number, model.model_id),
            location=("models", number - 1, "draft"),
        )
        for number, model in models.items()
        if model.draft in remote
    ]
