"""How messages reach MCP servers: standard input and output of a program, HTTP, server-sent events, WebSocket."""
