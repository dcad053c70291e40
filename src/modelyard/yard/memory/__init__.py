"""Predicts the memory of a model before it is loaded."""
