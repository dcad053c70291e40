"""Python functions of a program as tools that its models call."""
