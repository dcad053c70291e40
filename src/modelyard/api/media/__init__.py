"""Images and sound that requests bring, or name: fetched within limits, decoded, and brought to what models take."""
