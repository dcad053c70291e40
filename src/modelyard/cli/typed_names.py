"""Names options in errors as they were typed, where the configuration's own errors name its keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from modelyard.cli.exit_codes import USAGE, exit_code
from modelyard.errors import ConfigError, ModelyardError, UnusableModels

OPTIONS: Final[Mapping[str, str]] = {
    "model_id": "the model",
    "max_seq_len": "--ctx",
    "max_seqs": "--max-seqs",
    "device_layers": "--device-layers",
    "cpu": "--cpu",
    "devices": "--devices",
    "n_cpu_moe": "--n-cpu-moe",
    "tensor_overrides": "--tensor-override",
    "split_mode": "--split-mode",
    "tensor_split": "--tensor-split",
    "main_gpu": "--main-gpu",
    "kv_on_host": "--kv-on-host",
    "mlock": "--mlock",
    "mmap": "--no-mmap",
    "quant": "--quant",
    "isq": "--isq",
    "from_uqff": "--from-uqff",
    "imatrix": "--imatrix",
    "quantized_file": "--quantized-file",
    "mmproj": "--mmproj",
    "format": "--format",
    "dtype": "--dtype",
    "kind": "--kind",
    "chat_template": "--chat-template",
    "token_source": "--token-source",
    "host": "--host",
    "port": "--port",
    "allowed_hosts": "--allowed-host",
    "mcp_config": "--mcp-config",
    "mcp_port": "--mcp-port",
    "max_tool_rounds": "--max-tool-rounds",
}
"""Key of the configuration -> the option of the command line."""

# Keys that are also words of the messages: they stand for the key only before a value, or at the beginning.
_WORDS: Final = frozenset({"format", "kind", "host", "port", "dtype", "devices"})

_LABEL: Final = re.compile(r"^(?:\[+[\w.]+\]+(?: of model)?(?: (?P<number>\d+)(?: \((?P<model>'[^']*')\))?)?: )")
_ONE_MODEL: Final = re.compile(r"^model '[^']*': ")
_SWITCH: Final = re.compile(r"\bcpu = true(?: \((?:[^()]|\([^()]*\))*\))?")
_ASSIGNED: Final = re.compile(r"""(?<![\w/.-])(\w+)(?: = | )(?:'([^'\s]*)'|"([^"\s]*)")""")
_ORDERED: Final = re.compile(r"\b(Remove|Set) (format|kind|host|port|dtype)\b")
_QUOTED: Final = re.compile(r"'(\w+)'")
_BARE: Final = re.compile(r"(?<![\w/.'\"-])(\w+)(?![\w/'\"-]|\.\w)")


class OptionError(ModelyardError):
    """An error about what the options of a command line say, in their words.

    Attributes:
        original: the error in the words of the configuration.
    """

    def __init__(self, original: ModelyardError) -> None:
        super().__init__(str(original))
        self.original = original

    def __str__(self) -> str:
        if isinstance(self.original, UnusableModels):
            problems = [as_typed(str(problem)) for problem in self.original.problems]
            # Of one model, it is plain which one is meant.
            return "\n".join(problems) if len(problems) > 1 else _ONE_MODEL.sub("", problems[0])
        if not isinstance(self.original, ConfigError):
            return as_typed(str(self.original))
        return "\n".join(as_typed(str(problem)) for problem in self.original.problems)

    @property
    def exit_code(self) -> int:
        """The exit code of the command: a wrong configuration is a wrong command line."""
        if isinstance(self.original, ConfigError) and not isinstance(self.original, UnusableModels):
            return USAGE
        return exit_code(self.original)


@contextmanager
def options_as_typed() -> Iterator[None]:
    """Turn errors about the configuration and its models into errors that name options.

    Raises:
        OptionError: something within the context raised a ModelyardError.
    """
    try:
        yield
    except OptionError:
        raise
    except ModelyardError as error:
        raise OptionError(error) from error


def as_typed(message: str) -> str:
    """Return a message about the configuration with options in place of keys, and without the table's name.

    ``[models.device] of model 1 ('x.gguf'): max_seq_len must be …, not -5.`` becomes ``--ctx must be …, not -5.``
    """
    text = _LABEL.sub("", message)
    # Only TOML has quotes around them.
    text = text.replace("non-empty text in quotes", "non-empty text").replace("a path in quotes", "a path")
    text = _SWITCH.sub("--cpu", text)
    text = _ASSIGNED.sub(_assigned, text)
    begins_with = text.partition(" ")[0].rstrip(":,.")
    if begins_with in _WORDS:
        text = OPTIONS[begins_with] + text[len(begins_with) :]
    text = _ORDERED.sub(lambda match: f"{match[1]} {OPTIONS[match[2]]}", text)
    text = _QUOTED.sub(lambda match: _bare(match, match[1]), text)
    text = _BARE.sub(lambda match: _bare(match, match[1]), text)
    return text[:1].upper() + text[1:] if text.startswith("the model") else text


def _assigned(match: re.Match[str]) -> str:
    key, value = match[1], match[2] if match[2] is not None else match[3]
    if key not in OPTIONS or key == "model_id" or (key in _WORDS and " = " not in match[0] and match[3] is None):
        return match[0]
    is_value = " = " in match[0] or key in _WORDS
    return f"{OPTIONS[key]} {value}" if is_value else f"{OPTIONS[key]}{match[0][len(key) :]}"


def _bare(match: re.Match[str], key: str) -> str:
    return OPTIONS[key] if key in OPTIONS and key not in _WORDS else match[0]
