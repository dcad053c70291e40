"""Commands that use a running server, as thin clients of its HTTP API."""
