"""Errors as HTTP responses, in the shape of each dialect."""
