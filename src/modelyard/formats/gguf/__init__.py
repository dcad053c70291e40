"""GGUF: the header of a file, its values, and checks for faults on which llama.cpp would abort."""
