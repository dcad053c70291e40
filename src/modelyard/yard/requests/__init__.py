"""Requests: who sends them, where they go, and what comes back."""
