"""``modelyard init``: writes a commented configuration of the models that are on this machine."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from modelyard.cli.exit_codes import MODEL
from modelyard.cli.messages import print_note
from modelyard.cli.usage import UsageError
from modelyard.errors import ModelyardError
from modelyard.system.quantities import count_text
from modelyard.system.typed_paths import exists, expanded, is_folder

if TYPE_CHECKING:
    from modelyard.hub.select.found_models import Place

# Where people have models; the demo models are for those who have none.
_PLACES: Final = ("huggingface", "ollama", "lmstudio", "llama.cpp", "gpt4all")
_DEMO: Final = "demo"
_STDOUT: Final = "-"


class NotWritten(ModelyardError):
    """The configuration cannot be written; the message says why, and what to do."""


def init(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FOLDER|PLACE",
            help="Folders of models, or huggingface, ollama, lmstudio, llama.cpp, gpt4all, demo. Without any: this "
            "folder if it has GGUF files, and these places, demo only where there is no other model.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The file to write; - is standard output.")
    ] = "models.toml",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented configuration of the models on this machine.

    For each model it says how much memory it takes, and whether that fits. Nothing is loaded or downloaded.
    """
    path = None if output == _STDOUT else Path(output)
    _check_output(path, is_forced=force)
    from modelyard.cli.init_file import draft_config

    here = (".",) if any(Path.cwd().glob("*.gguf")) else ()
    places = _look(sources or (*here, *_PLACES))
    if not sources and not any(place.models for place in places):
        places += _look([_DEMO])
    for place in places:
        print_note(_said(place))
    models = [model for place in places for model in place.models]
    if not models:
        print_note(
            "No model was found. Name a folder: modelyard init ./models. Or download one: ollama pull, "
            "or `hf download Qwen/Qwen3-0.6B-GGUF`."
        )
        raise typer.Exit(MODEL)
    print_note("Looking at their files…")
    draft = draft_config(list(dict.fromkeys(models)), Path.cwd() if path is None else path.parent)
    for reason in draft.left_out:
        print_note(reason)
    if not draft.usable:
        print_note("None of them can be served, so nothing is written.")
        raise typer.Exit(MODEL)
    if path is None:
        typer.echo(draft.text, nl=False)
        return
    _write(path, draft.text, is_forced=force)
    print_note(
        f"Wrote {path} with {count_text(len(draft.usable), 'model')}. Next: modelyard serve {shlex.quote(str(path))}"
    )


def _look(sources: Sequence[str]) -> list[Place]:
    """Look in places and folders.

    Raises:
        UsageError: a source is neither.
    """
    from modelyard.hub.select.found_models import PLACES, find_in_folder

    places = []
    for source in dict.fromkeys(sources):
        name = source.lower().replace("-", "").replace("_", "")
        if (find := PLACES.get("huggingface" if name == "hf" else name)) is not None:
            places.append(find(expanded("~"), os.environ))
            continue
        folder = expanded(source)
        if not is_folder(folder):
            problem = f"{source} is a file" if exists(folder) else f"There is no folder {source}"
            raise UsageError(f"{problem}. Name a folder of models, or one of {', '.join(PLACES)}.")
        places.append(find_in_folder(folder.absolute()))
    return places


def _said(place: Place) -> str:
    if place.problem:
        return f"{place.name}: {place.problem}"
    if not place.where:
        return f"{place.name}: not on this machine"
    models = count_text(len(place.models), "model") if place.models else "no models"
    return f"{place.name}: {models} in {place.where}"


def _check_output(path: Path | None, *, is_forced: bool) -> None:
    """Refuse a file that cannot be written, before anything is looked at."""
    if path is None:
        return
    if path.suffix.lower() != ".toml":
        raise UsageError(f"--output {path}: a configuration must end in .toml; - is standard output.")
    if is_folder(path):
        raise UsageError(f"--output {path}: this is a folder. Name a file in it.")
    if not is_folder(path.parent):
        raise UsageError(f"--output {path}: there is no folder {path.parent}.")
    if os.path.lexists(path) and not is_forced:
        raise UsageError(f"{path} exists, and is not overwritten. Name another file with --output, or add --force.")


def _write(path: Path, text: str, *, is_forced: bool) -> None:
    """Write the file, and never over one that came up meanwhile.

    Raises:
        NotWritten: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}") if is_forced else path
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
        if is_forced:
            temporary.replace(path)
    except FileExistsError:
        raise NotWritten(f"{temporary} exists by now, and is not overwritten.") from None
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise NotWritten(f"{path} cannot be written: {error.strerror}.") from error
