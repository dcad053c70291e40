"""From sampled tokens to the text and log-probabilities of an answer."""
