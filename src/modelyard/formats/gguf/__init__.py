"""GGUF: header, values, and checks of what llama.cpp would abort on."""
