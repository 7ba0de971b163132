"""Running a prompt ahead of a call, for a gate that weights meet before it is read."""

from collections.abc import Mapping
from typing import Any

from steer.engine._call import STATES, Call

_LEFT_OUT = (*STATES, "cache_position", "labels", "logits_to_keep", "return_dict")
_OUTPUTS = ("output_hidden_states", "output_attentions", "output_router_logits")


class Enough(Exception):  # noqa: N818 - no error: it ends a run that has given all it should
    """Raised where the last that was wanted has been read; never seen by a caller."""


def prompt_arguments(given: Mapping[str, Any], call: Call) -> dict[str, Any]:
    """Return the arguments of a forward of the same tokens that leaves the caller's cache alone."""
    kept = {k: v for k, v in given.items() if k not in (*_LEFT_OUT, *_OUTPUTS) and v is not None}
    if call.prompts is not None:  # a static cache comes with a mask of its own shape
        mask = call.prompts.mask[:, : call.length].repeat_interleave(call.expand, dim=0)
        kept["attention_mask"] = mask.long()
    return kept | {"use_cache": False}
