"""Whether prompts can be generated in one batch: tried on the model, never guessed."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from steer.engine._base import Batch
from steer.engine._injector import injector_of
from steer.engine._options import setting
from steer.engine._packing import attempt, distance, known_of, tolerance_of
from steer.engine._reading import device_of
from steer.errors import CapabilityError
from steer.network import Architecture
from steer.network._architecture.probe import probe_ids

Mixing = Literal["", "padding", "rows"]
_SHORT, _STEPS = 5, 3


def one_by_one(architecture: Architecture, options: Mapping[str, Any]) -> bool:
    """Return whether prompts must be generated one by one, since a batch changes its rows.

    The first call generates a short text, padded on the left, and a longer one, together and alone,
    and compares their logits. The answer is kept with the model; a warning says if it is yes.
    """
    default = getattr(architecture.model, "generation_config", None)
    found = _mixing(architecture, setting(options, default, "use_cache") is not False)
    for name in ("num_beams", "num_return_sequences") if found == "rows" else ():
        if (count := setting(options, default, name) or 1) > 1:
            raise CapabilityError(
                "this model computes a row differently beside other rows",
                found=f"{name}={count}, so {count} rows for a prompt",
                expected="one row at a time",
                do=f"leave out {name}, or pass use_cache=False, which some models get right",
            )
    return found != ""


def _mixing(architecture: Architecture, cached: bool) -> Mixing:
    """Return whether other rows or padding on the left change a row."""
    model = architecture.model
    known: dict[Any, Mixing] = known_of(architecture)
    key = (one_by_one, cached)
    if key not in known:
        with injector_of(architecture).without_hooks(always=False):
            found, reason = _tried(architecture, cached)
        if found is None:  # a setting so strong that nothing can be compared
            return ""
        known[key] = found
        if reason:
            said = f"{type(model).__name__} generates prompts one by one: {reason}"
            warnings.warn(said, stacklevel=7)
    return known[key]


@torch.no_grad()
def _tried(architecture: Architecture, cached: bool) -> tuple[Mixing | None, str]:
    """Return the same with the reason in words; None if logits are not finite."""
    config: Any = architecture.model.config
    long = probe_ids(config, architecture.embedding, architecture.vocab)[:2].flatten().tolist()
    short = long[:_SHORT]
    found = attempt(
        lambda: [_logits(architecture, rows, cached) for rows in ([short, long], [short], [long])]
    )
    if isinstance(found, str):
        return "rows", f"a batch of two texts cannot be tried ({found})"
    both, *alone = found
    if not all(bool(logits.isfinite().all()) for logits in alone):
        return None, ""
    padded, beside = (distance(both[:, row], logits[:, 0]) for row, logits in enumerate(alone))
    limit = tolerance_of(architecture)
    if not beside <= limit:  # NaN is not
        return "rows", f"a row beside another one differs by {beside:.1e} from the same row alone"
    if not padded <= limit:
        return "padding", f"a row padded on the left differs by {padded:.1e} from the row alone"
    return "", ""


def _logits(architecture: Architecture, rows: Sequence[Sequence[int]], cached: bool) -> Tensor:
    """Return `[step row vocab]`: the logits of a few steps whose tokens are given."""
    model: Any = architecture.model
    batch = Batch(tuple(map(tuple, rows)), tuple(map(len, rows)))
    ids, mask = batch.padded("left", device_of(architecture), rows[0][0])
    out = model.generate(
        input_ids=ids,
        attention_mask=mask.long(),
        max_new_tokens=_STEPS,
        do_sample=False,
        num_beams=1,
        num_return_sequences=1,
        use_cache=cached,
        pad_token_id=rows[0][0],
        prefix_allowed_tokens_fn=lambda row, so_far: [rows[0][0]],
        return_dict_in_generate=True,
        output_logits=True,
    )
    return torch.stack(out.logits).double()
