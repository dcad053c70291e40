"""Secrets of servers in texts."""

from modelyard.mcp.secrets import hidden, without_secrets


def test_the_longest_secret_is_hidden_first_and_what_is_too_short_not_at_all():
    secrets = hidden(["", "a", "token", "Bearer token"])
    assert without_secrets("a header Bearer token, or token", secrets) == "a header …, or …"
