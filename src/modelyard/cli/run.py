"""``modelyard run``: chats with one model in the terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.model_names import one_model_name
from modelyard.cli.options import ModelArgument, ModelOption, ModelOptions, one_model, takes_model_options


@takes_model_options(without=("max_seqs",))
def run(
    name: ModelArgument = None,
    model: ModelOption = None,
    question: Annotated[
        str | None, typer.Option("--input", "-i", metavar="TEXT", help="Ask this question, print the answer, and exit.")
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", metavar="FILE", help="Ask about this image; can be repeated. Needs --input."),
    ] = None,
    audio: Annotated[
        list[Path] | None,
        typer.Option("--audio", metavar="FILE", help="Ask about this sound; can be repeated. Needs --input."),
    ] = None,
    *,
    options: ModelOptions,
) -> None:
    """Chat with one model in the terminal."""
    if image and question is None:
        raise typer.BadParameter("Images need a question: give it with -i.", param_hint="--image")
    if audio and question is None:
        raise typer.BadParameter("Sound needs a question: give it with -i.", param_hint="--audio")
    config = one_model(one_model_name(name, model, command="run"), replace(options, max_seqs=1))
    from modelyard.cli.chat import chat

    chat(config, question, image or [], audio or [])
