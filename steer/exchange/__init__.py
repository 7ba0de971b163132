"""Files of other libraries: vectors out, and vectors in."""

from steer.exchange import (  # each module registers its format
    _gguf,
    _lm_eval,
    _peft,
    _persona,
    _svec,
    _tensor,
    _vllm_lens,
)
from steer.exchange._exchange import read, write
from steer.exchange._registry import Format, formats, get_format, register_format

__all__ = ["Format", "formats", "get_format", "read", "register_format", "write"]

del _gguf, _lm_eval, _peft, _persona, _svec, _tensor, _vllm_lens
