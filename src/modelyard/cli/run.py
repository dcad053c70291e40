"""``modelyard run``: chat with one model in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.options import (
    CpuOption,
    CtxOption,
    DeviceLayersOption,
    DtypeOption,
    FormatOption,
    FromUqffOption,
    ImatrixOption,
    IsqOption,
    KindOption,
    MmprojOption,
    ModelOption,
    QuantizedFileOption,
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
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", metavar="FILE", help="Ask about this image too; may be given again. Needs -i."),
    ] = None,
    audio: Annotated[
        list[Path] | None,
        typer.Option("--audio", metavar="FILE", help="Ask about this sound too; may be given again. Needs -i."),
    ] = None,
    cpu: CpuOption = False,
    device_layers: DeviceLayersOption = None,
    ctx: CtxOption = None,
    quant: QuantOption = None,
    isq: IsqOption = None,
    file_format: FormatOption = None,
    quantized_file: QuantizedFileOption = None,
    mmproj: MmprojOption = None,
    from_uqff: FromUqffOption = None,
    imatrix: ImatrixOption = None,
    dtype: DtypeOption = None,
    kind: KindOption = None,
    token_source: TokenSourceOption = None,
    chat_template: TemplateOption = None,
) -> None:
    """Chat with a model in the terminal."""
    if image and question is None:
        raise typer.BadParameter("Images need a question: give it with -i.", param_hint="--image")
    if audio and question is None:
        raise typer.BadParameter("Sound needs a question: give it with -i.", param_hint="--audio")
    config = one_model(
        model,
        cpu=cpu,
        device_layers=device_layers,
        max_seqs=1,
        ctx=ctx,
        quant=quant,
        isq=isq,
        file_format=file_format,
        quantized_file=quantized_file,
        mmproj=mmproj,
        from_uqff=from_uqff,
        imatrix=imatrix,
        dtype=dtype,
        kind=kind,
        token_source=token_source,
        chat_template=chat_template,
    )
    from modelyard.cli.chat import chat

    chat(config, question, image or [], audio or [])
