"""``modelyard serve``: an HTTP server with one model."""

from __future__ import annotations

from modelyard.cli.options import (
    CpuOption,
    CtxOption,
    DtypeOption,
    FromUqffOption,
    HostOption,
    ImatrixOption,
    IsqOption,
    KindOption,
    MaxSeqsOption,
    ModelOption,
    PortOption,
    QuantOption,
    TemplateOption,
    TokenSourceOption,
    one_model,
)


def serve(
    model: ModelOption,
    host: HostOption = None,
    port: PortOption = None,
    cpu: CpuOption = False,
    max_seqs: MaxSeqsOption = None,
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
    """Serve one model over HTTP. For several, see [bold]from-config[/]."""
    config = one_model(
        model,
        cpu=cpu,
        max_seqs=max_seqs,
        ctx=ctx,
        quant=quant,
        isq=isq,
        from_uqff=from_uqff,
        imatrix=imatrix,
        dtype=dtype,
        kind=kind,
        token_source=token_source,
        chat_template=chat_template,
        host=host,
        port=port,
    )
    from modelyard.cli.server import run_server

    run_server(config)
