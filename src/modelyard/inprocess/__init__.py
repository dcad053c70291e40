"""The yard in the caller's own process: builders, models, an OpenAI client without a socket, a server on top.

``modelyard`` itself names what of it is public.
"""
