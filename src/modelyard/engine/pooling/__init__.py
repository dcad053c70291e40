"""The engine of embedding and ranking models."""
