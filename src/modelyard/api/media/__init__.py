"""Images and sound of requests: fetched within limits, decoded, and converted to the input of models."""
