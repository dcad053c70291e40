"""``modelyard mcp``: MCP servers whose tools models call, and Modelyard as an MCP server."""
