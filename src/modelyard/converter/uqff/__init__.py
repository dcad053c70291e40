"""Writes UQFF from safetensors."""
