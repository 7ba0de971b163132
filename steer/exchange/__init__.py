"""Files of other libraries: vectors out, and vectors in."""

from steer.exchange import _gguf as _gguf  # each module registers its format
from steer.exchange import _peft as _peft
from steer.exchange._exchange import read, write
from steer.exchange._registry import Format, formats, get_format, register_format

__all__ = ["Format", "formats", "get_format", "read", "register_format", "write"]
