"""Files of other libraries: vectors out, and vectors in."""

from steer.exchange import (  # noqa: F401  # each module registers its format
    _checkpoint,
    _gguf,
    _lm_eval,
    _mergekit,
    _peft,
    _persona,
    _saelens,
    _svec,
    _tensor,
    _vllm_lens,
)
from steer.exchange._exchange import read, write
from steer.exchange._registry import Format, formats, get_format, register_format

__all__ = ["Format", "formats", "get_format", "read", "register_format", "write"]
