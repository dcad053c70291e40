"""Requests to models: their callers, their routing, and their answers."""
