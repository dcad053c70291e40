"""Converts UQFF to GGUF, and writes UQFF from safetensors."""
