"""Loads weights, contexts and projectors."""
