"""UQFF, the container of quantised weights that mistral.rs defines."""
