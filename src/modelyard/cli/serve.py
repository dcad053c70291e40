"""``modelyard serve``: an HTTP server with one model."""

from __future__ import annotations

from modelyard.cli.hosting import host_server
from modelyard.cli.options import (
    AllowedHostOption,
    CpuOption,
    CtxOption,
    DeviceLayersOption,
    DtypeOption,
    FormatOption,
    FromUqffOption,
    HostOption,
    ImatrixOption,
    IsqOption,
    KindOption,
    MaxSeqsOption,
    MmprojOption,
    ModelOption,
    NoSupervisorOption,
    PortOption,
    QuantizedFileOption,
    QuantOption,
    TemplateOption,
    TokenSourceOption,
    one_model,
)


def serve(
    model: ModelOption,
    host: HostOption = None,
    port: PortOption = None,
    allowed_host: AllowedHostOption = None,
    no_supervisor: NoSupervisorOption = False,
    cpu: CpuOption = False,
    device_layers: DeviceLayersOption = None,
    max_seqs: MaxSeqsOption = None,
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
    """Serve one model over HTTP. For several, see [bold]from-config[/]."""
    config = one_model(
        model,
        cpu=cpu,
        device_layers=device_layers,
        max_seqs=max_seqs,
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
        host=host,
        port=port,
        allowed_hosts=allowed_host,
    )
    host_server(config, is_supervised=not no_supervisor)
