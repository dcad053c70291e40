"""Modelyard as an MCP server: its models as tools and resources of other programs."""
