"""The HTTP server: uvicorn's parser and cycle, behind connections that are bounded in number, size and time."""
