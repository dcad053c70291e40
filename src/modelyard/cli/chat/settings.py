"""The settings of answers: fields of a request, their spelling in ``/set`` and as options, and their values as text.

The HTTP schema has the bounds of the values; ``check`` asks it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final, Literal

ValueKind = Literal["number", "whole", "tokens", "flag", "text", "texts", "object"]

_METAVARS: Final[Mapping[ValueKind, str]] = MappingProxyType(
    {
        "number": "NUMBER",
        "whole": "N",
        "tokens": "TOKENS",
        "flag": "on|off",
        "text": "TEXT",
        "texts": "TEXT",
        "object": "JSON",
    }
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of a request.

    Attributes:
        name: of the field.
        text: what it does.
        aliases: other spellings.
        chat_only: whether text completions do not have it.
    """

    name: str
    kind: ValueKind
    text: str
    aliases: tuple[str, ...] = ()
    chat_only: bool = False

    @property
    def option(self) -> str:
        """Its option on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def metavar(self) -> str:
        """What stands for its value in help."""
        return _METAVARS[self.kind]


SETTINGS: Final = (
    Setting("temperature", "number", "Randomness; 0 always takes the most likely token.", ("temp",)),
    Setting("max_tokens", "tokens", "Limit of tokens in an answer.", ("num_predict", "n_predict")),
    Setting("seed", "whole", "The same seed and request give the same answer."),
    Setting("stop", "texts", "Text that ends the answer; can be several."),
    Setting("top_k", "whole", "Sample from the k most likely tokens; 0: from all."),
    Setting("top_p", "number", "Sample from the most likely tokens that together reach this probability."),
    Setting("min_p", "number", "Sample from tokens at least this fraction as likely as the most likely one."),
    Setting("typical_p", "number", "Sample from tokens about as likely as expected.", ("typical",)),
    Setting("top_n_sigma", "number", "Sample from logits within so many standard deviations of the highest."),
    Setting("repetition_penalty", "number", "Above 1, tokens that occurred are less likely.", ("repeat_penalty",)),
    Setting("repeat_last_n", "whole", "How many of the last tokens the penalties count; -1: all."),
    Setting("presence_penalty", "number", "Subtracted from the logit of every token that occurred."),
    Setting("frequency_penalty", "number", "Subtracted from a token's logit for each time it occurred."),
    Setting("dry_multiplier", "number", "DRY: penalty of a token that would continue a repetition; 0: none."),
    Setting("dry_base", "number", "DRY: growth of the penalty with each token of a repetition."),
    Setting("dry_allowed_length", "whole", "DRY: repetitions up to this length are not penalised."),
    Setting("dry_penalty_last_n", "whole", "DRY: how many of the last tokens are searched; -1: all."),
    Setting("dry_sequence_breakers", "texts", "DRY: texts that end a repetition."),
    Setting("xtc_probability", "number", "XTC: probability of dropping all likely tokens but the least likely."),
    Setting("xtc_threshold", "number", "XTC: a token is likely from this probability on."),
    Setting("dynatemp_range", "number", "The temperature varies by up to this number with the entropy."),
    Setting("dynatemp_exponent", "number", "How the entropy maps to the temperature."),
    Setting("mirostat", "whole", "Version of Mirostat, 1 or 2; 0: off."),
    Setting("mirostat_tau", "number", "Mirostat: the entropy to aim at."),
    Setting("mirostat_eta", "number", "Mirostat: how fast it adapts."),
    Setting("samplers", "texts", "The samplers to apply, in this order."),
    Setting("logit_bias", "object", "Token id or text, and what is added to its logit."),
    Setting("min_tokens", "tokens", "The answer does not end before it has so many tokens."),
    Setting("ignore_eos", "flag", "Whether to continue to max_tokens when the model ends its answer."),
    Setting("reasoning_effort", "text", "How much to think: none, minimal, low, medium, high, max.", chat_only=True),
    Setting("thinking_budget", "tokens", "Limit of tokens of the reasoning.", chat_only=True),
)

_BY_NAME: Final = {name: setting for setting in SETTINGS for name in (setting.name, *setting.aliases)}

_WITH_THE_LOAD: Final = "is decided when the model is loaded, not in a chat"
_WRAPPED: Final = "is not a setting here: answers are always wrapped at words"

# Settings of other chats. Source: Ollama, docs/modelfile.mdx, PARAMETER, and the help of its /set.
_ELSEWHERE: Final = {
    **dict.fromkeys(("num_ctx", "ctx", "context_length"), f"{_WITH_THE_LOAD}: modelyard run MODEL --ctx TOKENS"),
    **dict.fromkeys(("num_gpu", "gpu_layers"), f"{_WITH_THE_LOAD}: modelyard run MODEL --device-layers LAYERS"),
    **dict.fromkeys(("num_thread", "num_batch", "use_mmap", "main_gpu"), _WITH_THE_LOAD),
    "num_keep": "is not a setting here: the system prompt is always kept, and the oldest turns are left out first",
    "keep_alive": "is idle_unload_seconds of a server's configuration",
    **dict.fromkeys(("wordwrap", "nowordwrap"), _WRAPPED),
}

_FLAGS: Final = {
    "on": True,
    "true": True,
    "yes": True,
    "1": True,
    "off": False,
    "false": False,
    "no": False,
    "0": False,
}

_ESCAPES: Final = (("\\n", "\n"), ("\\t", "\t"))


class BadSetting(ValueError):
    """A setting does not exist, or cannot have the value."""


def setting_of(name: str) -> Setting:
    """Return the setting of that name, in any spelling.

    Raises:
        BadSetting: there is none.
    """
    plain = name.lower().lstrip("-").replace("-", "_")
    if plain in _BY_NAME:
        return _BY_NAME[plain]
    if plain in _ELSEWHERE:
        raise BadSetting(f"'{name}' {_ELSEWHERE[plain]}.")
    close = get_close_matches(plain, _BY_NAME, n=1)
    hint = f" Did you mean {close[0]}?" if close else " /set lists them."
    raise BadSetting(f"There is no setting '{name}'.{hint}")


def value_of(setting: Setting, text: str) -> Any:
    """Return the value that ``text`` stands for, within the bounds of the HTTP schema.

    Raises:
        BadSetting: it stands for none. The message has the value, but not the name of the setting.
    """
    return check(setting, _parsed(setting, text))


def texts_value(setting: Setting, texts: list[str]) -> list[str]:
    """Return the value of a setting of the kind "texts" whose texts are given one by one.

    Raises:
        BadSetting: as ``value_of``.
    """
    return list(check(setting, [_unescaped(text) for text in texts]))


def _parsed(setting: Setting, text: str) -> Any:
    match setting.kind:
        case "whole":
            try:
                return int(text)
            except ValueError:
                raise BadSetting(f"must be a whole number, not '{text}'") from None
        case "tokens":
            from modelyard.config.counts import read_tokens

            try:
                return int(read_tokens(text))
            except ValueError:
                raise BadSetting(f"must be a whole number, or one such as 2k, not '{text}'") from None
        case "number":
            try:
                return float(text)
            except ValueError:
                raise BadSetting(f"must be a number, not '{text}'") from None
        case "flag":
            if text.lower() not in _FLAGS:
                raise BadSetting(f"must be on or off, not '{text}'")
            return _FLAGS[text.lower()]
        case "object":
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                raise BadSetting(f"must be a JSON object such as {{\"42\": -5}}, not '{text}'") from None
        case "text":
            return text
        case "texts":
            try:
                texts = shlex.split(text.replace("\\", "\\\\"))
            except ValueError:
                texts = [text]
            return [_unescaped(each) for each in texts]


def _unescaped(text: str) -> str:
    for written, meant in _ESCAPES:
        text = text.replace(written, meant)
    return text


def check(setting: Setting, value: Any) -> Any:
    """Return ``value`` if the HTTP schema allows it.

    Raises:
        BadSetting: it does not.
    """
    from pydantic import ValidationError

    from modelyard.api.openai.schema import ChatCompletionRequest
    from modelyard.errors import ModelyardError

    try:
        ChatCompletionRequest.model_validate({"messages": "x", setting.name: value})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]["msg"]
        reason = problem.removeprefix("Value error, ").removeprefix("Input ").removeprefix("should ")
        raise BadSetting(f"must {reason}, not {shown(value)}" if reason.startswith("be ") else reason) from None
    except ModelyardError as error:
        raise BadSetting(str(error)) from None
    return value


def shown(value: Any) -> str:
    """Return a value as ``/set`` shows it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return " ".join(json.dumps(each, ensure_ascii=False) for each in value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def request_fields(values: Mapping[str, Any], *, chat: bool) -> dict[str, Any]:
    """Return the fields of a request for the values of settings, without those that it does not have."""
    return {name: value for name, value in values.items() if chat or not _BY_NAME[name].chat_only}
