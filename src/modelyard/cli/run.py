"""``modelyard run``: chat with one model in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli.options import (
    CpuOption,
    CtxOption,
    DtypeOption,
    FromUqffOption,
    ImatrixOption,
    IsqOption,
    KindOption,
    ModelOption,
    QuantOption,
    TemplateOption,
    TokenSourceOption,
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
    isq: IsqOption = None,
    from_uqff: FromUqffOption = None,
    imatrix: ImatrixOption = None,
    dtype: DtypeOption = None,
    kind: KindOption = None,
    token_source: TokenSourceOption = None,
    chat_template: TemplateOption = None,
) -> None:
    """Chat with a model in the terminal."""
    config = one_model(
        model,
        cpu=cpu,
        max_seqs=1,
        ctx=ctx,
        quant=quant,
        isq=isq,
        from_uqff=from_uqff,
        imatrix=imatrix,
        dtype=dtype,
        kind=kind,
        token_source=token_source,
        chat_template=chat_template,
    )
    from modelyard.cli.chat import chat

    chat(config, question)
