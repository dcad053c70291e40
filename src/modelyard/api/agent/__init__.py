"""Endpoints about the server's own tools: which there are, and the calls that wait for an approval."""
