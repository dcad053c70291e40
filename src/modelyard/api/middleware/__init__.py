"""ASGI middleware around all endpoints."""
