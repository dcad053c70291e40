"""Inputs that end llama.cpp, hang it, or make it give nonsense, tried on a server that has other models to serve."""
