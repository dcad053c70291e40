"""Proposes tokens that the model then verifies in one step."""
