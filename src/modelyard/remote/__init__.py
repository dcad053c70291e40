"""Models that other servers have: engines whose model is behind an OpenAI-compatible address."""
