"""Reranking, in the dialect that Jina, Cohere and vLLM share."""
