"""Vectors in servers: each request of a vLLM server carries its own coefficients.

vLLM loads `_plugin` by its entry point; nothing here is imported by a user's program.
"""

__all__: list[str] = []
