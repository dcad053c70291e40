"""Where an engine runs, beside a thread of the server."""
