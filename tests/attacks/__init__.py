"""Hostile clients against a server under load: see ``make attack``."""
