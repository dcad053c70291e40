"""The text of the configuration that ``modelyard init`` writes."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelyard.cli.tables import budgets_text, size

if TYPE_CHECKING:
    from modelyard.yard.inspection import InspectedModel, Inspection

_WIDTH: Final = 100
_GENERATORS: Final = ("text", "multimodal")


@dataclass(frozen=True, slots=True)
class Draft:
    """A configuration that can be written.

    Attributes:
        text: its text.
        usable: ids of the models that can be served.
        left_out: one sentence for each model that cannot, and is only a comment in the text.
    """

    text: str
    usable: tuple[str, ...]
    left_out: tuple[str, ...]


def draft_config(models: Sequence[str], base: Path) -> Draft:
    """Return a configuration of these models, each loaded on demand.

    Args:
        models: what names each of them, as in ``model_id``.
        base: the folder that the file will be in.
    """
    from modelyard.config import validate_config
    from modelyard.config.model_reference import parse_model_reference, unique_ids
    from modelyard.config.rules import RESERVED_NAME
    from modelyard.yard.inspection import inspect_on_this_machine

    # TOML is UTF-8, and names of files need not be.
    names = [_shortened(model, base) for model in models if _is_unicode(model)]
    references = [parse_model_reference(name, base) for name in names]
    aliases = [
        alias if reference.kind == "path" or alias != reference.id else None
        for alias, reference in zip(unique_ids(references, {RESERVED_NAME}), references, strict=True)
    ]
    tables = [
        {"model_id": name, "load": "on-demand", **({"alias": alias} if alias else {})}
        for name, alias in zip(names, aliases, strict=True)
    ]
    config = validate_config({"models": tables}, source="the models that were found", base=base)
    inspection = inspect_on_this_machine(config)
    reasons = [_why_not(model, inspection) for model in inspection.models]
    usable = [model for model, reason in zip(inspection.models, reasons, strict=True) if not reason]
    blocks = [
        "\n".join(_block(model, alias, reason))
        for model, alias, reason in zip(inspection.models, aliases, reasons, strict=True)
    ]
    left_out = [
        f"{model.id} is left out: {reason}" for model, reason in zip(inspection.models, reasons, strict=True) if reason
    ]
    left_out += [f"{model!r} is left out: its name is not Unicode." for model in models if not _is_unicode(model)]
    text = "\n\n".join(("\n".join(_head(usable, inspection)), *blocks)) + "\n"
    return Draft(text, tuple(model.id for model in usable), tuple(left_out))


def _head(usable: Sequence[InspectedModel], inspection: Inspection) -> Iterator[str]:
    from modelyard.config.json_schema import SCHEMA_FILE

    yield f"#:schema {SCHEMA_FILE.as_uri()}"
    yield "# Written by `modelyard init`. `modelyard check` finds mistakes in it, and `modelyard serve` serves it."
    yield ""
    if usable:
        default = next((model for model in usable if model.kind in _GENERATORS), usable[0])
        yield "# The model of requests that name none."
        yield f"default_model_id = {_quoted(default.id)}"
        yield ""
    yield "[server]"
    yield 'host = "127.0.0.1" # this machine only; "0.0.0.0" is every network'
    yield "port = 1234"
    yield ""
    yield "[memory]"
    yield "# What all loaded models may take together. Without it: 80 % of what is free at the start,"
    yield f"# {size(inspection.budget_bytes)} at the moment. Models that are not in use make room for others."
    yield '# budget = "50%"'
    yield '# devices = { CUDA0 = "80%" } # of a GPU; without it: what is free there, less a reserve'


def _block(model: InspectedModel, alias: str | None, reason: str) -> Iterator[str]:
    """Yield the lines of a model's table, which are comments where it cannot be served."""
    mark = "# " if reason else ""
    yield from _comment(reason or _summary(model))
    yield f"{mark}[[models]]"
    yield f"{mark}model_id = {_quoted(model.model_id)}"
    if alias:
        yield f"{mark}alias = {_quoted(alias)}"
    yield f'{mark}load = "on-demand" # with the first request; "startup": before the server listens'
    if not reason:
        yield '# idle_unload_seconds = "10m"'


def _summary(model: InspectedModel) -> str:
    what = [model.quantization, {"text": "", "multimodal": "takes images or sound"}.get(model.kind, model.kind)]
    context = "" if model.context_length is None else f" with a context of {model.context_length:,} tokens"
    facts = ", ".join(filter(None, (*what, f"{size(model.size_bytes)} on disk")))
    return f"{facts}. Takes {size(model.memory_bytes)} of memory{context}: it fits this machine."


def _why_not(model: InspectedModel, inspection: Inspection) -> str:
    """Return why a model cannot be served, as a sentence; "" where it can."""
    if model in inspection.oversized:
        return (
            f"It does not fit this machine: it takes {size(model.memory_bytes)} of memory, and "
            f"{budgets_text(inspection.budgets)} are there for models."
        )
    return model.problem or model.unchecked


def _comment(text: str) -> list[str]:
    # A line end within a name would end the comment.
    printable = "".join(character if character.isprintable() else " " for character in text)
    return textwrap.wrap(
        printable, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def _quoted(text: str) -> str:
    """Return the text as a TOML string. JSON's escapes are TOML's; ``$`` would begin a reference to a variable."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f").replace("$", "$$")


def _shortened(model: str, base: Path) -> str:
    """Return the path of a model from the folder of the configuration, where it is inside of it."""
    path = Path(model)
    if not path.is_absolute() or not path.is_relative_to(base.absolute()):
        return model
    relative = path.relative_to(base.absolute()).as_posix()
    return relative if relative.startswith("../") else f"./{relative}"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
