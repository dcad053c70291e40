"""The HTTP surface: one module a dialect, one table of errors, nothing of llama.cpp."""
