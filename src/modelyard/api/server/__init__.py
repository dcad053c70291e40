"""Endpoints about the server itself: health, metrics, configuration."""
