"""Clients of MCP servers, whose tools become tools of this server.

Source of the protocol: https://modelcontextprotocol.io/specification.
"""
