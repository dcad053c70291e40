"""Runs the tests of llama.cpp's server against this one."""
