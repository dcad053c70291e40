"""The agentic loop: the server runs the tools that a model calls, and lets the model go on with their results."""
