"""Vectors in vLLM: each request carries its own coefficients.

A vLLM server loads `_plugin` by its entry point. That must cost a server without vectors nothing,
so that the class `VLLM` is loaded when it is first named (PEP 562).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steer.serving._vllm import VLLM

__all__ = ["VLLM"]

if not TYPE_CHECKING:  # a type checker reads the import above

    def __getattr__(name: str) -> object:
        """Return the class, loaded when it is first named."""
        if name != "VLLM":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from steer.serving._vllm import VLLM

        return VLLM
