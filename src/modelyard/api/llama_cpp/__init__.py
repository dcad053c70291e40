"""Endpoints of llama.cpp's server and of its router."""
