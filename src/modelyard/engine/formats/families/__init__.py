"""The formats of tool calls, one file a family of models that write alike."""
