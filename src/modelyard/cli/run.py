"""``modelyard run``: chat with one model in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli.options import (
    CpuOption,
    CtxOption,
    ModelOption,
    QuantOption,
    TemplateOption,
    one_model,
)


def run(
    model: ModelOption,
    question: Annotated[
        str | None, typer.Option("--input", "-i", metavar="TEXT", help="Ask this, print the answer, and exit.")
    ] = None,
    cpu: CpuOption = False,
    ctx: CtxOption = None,
    quant: QuantOption = None,
    chat_template: TemplateOption = None,
) -> None:
    """Chat with a model in the terminal."""
    config = one_model(model, cpu=cpu, max_seqs=1, ctx=ctx, quant=quant, chat_template=chat_template)
    from modelyard.cli.chat import chat

    chat(config, question)
