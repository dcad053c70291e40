"""What options become in the configuration."""

from __future__ import annotations

from modelyard.cli.options import one_model


def test_names_of_the_server_may_be_given() -> None:
    unset = dict.fromkeys(("quant", "isq", "imatrix", "dtype", "kind", "token_source"))
    assert one_model("m", **unset, allowed_hosts=["modelyard", "*.lan"]).server.allowed_hosts == ("modelyard", "*.lan")
    assert one_model("m", **unset).server.allowed_hosts == ()
