"""One model: its weights, context and chat template, scheduling, sampling."""
