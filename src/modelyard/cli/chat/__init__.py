"""``modelyard run``: a chat in the terminal, or one question, through the HTTP API of a server or of an own engine."""
