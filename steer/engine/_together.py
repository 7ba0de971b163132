"""Whether prompts can be generated in one batch: tried on the model, never guessed."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from steer.engine._injector import injector_of
from steer.engine._options import setting
from steer.engine._packing import FAILURES, failure, known_of, tolerance_of
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
    """Return what changes a row: those beside it, padding on the left, or nothing."""
    model = architecture.model
    known: dict[Any, Mixing] = known_of(architecture)
    key = (one_by_one, cached)
    if key not in known:
        with injector_of(architecture).during_trial():
            found, reason = _tried(architecture, cached)
        if found is None:  # a setting so strong that nothing can be compared
            return ""
        known[key] = found
        if reason:
            said = f"{type(model).__name__} generates prompts one by one: {reason}"
            warnings.warn(said, stacklevel=6)
    return known[key]


@torch.no_grad()
def _tried(architecture: Architecture, cached: bool) -> tuple[Mixing | None, str]:
    """Return what changes a row, and the reason in words; None if logits are not finite."""
    config: Any = architecture.model.config
    long = probe_ids(config, architecture.embedding, architecture.vocab)[:2].flatten().tolist()
    short = long[:_SHORT]
    try:
        both = _logits(architecture, [short, long], cached)
        alone = [_logits(architecture, [ids], cached)[:, 0] for ids in (short, long)]
    except torch.OutOfMemoryError:
        raise
    except FAILURES as error:
        return "rows", f"a batch of two texts cannot be tried ({failure(error)})"
    if not all(bool(logits.isfinite().all()) for logits in alone):
        return None, ""
    padded, beside = (_distance(both[:, row], logits) for row, logits in enumerate(alone))
    limit = tolerance_of(architecture)
    if not beside <= limit:  # NaN is not
        return "rows", f"a row beside another one differs by {beside:.1e} from the same row alone"
    if not padded <= limit:
        return "padding", f"a row padded on the left differs by {padded:.1e} from the row alone"
    return "", ""


def _logits(architecture: Architecture, rows: Sequence[Sequence[int]], cached: bool) -> Tensor:
    """Return `[step row vocab]`: the logits of a few steps whose tokens are given."""
    model: Any = architecture.model
    width, device = max(map(len, rows)), device_of(architecture)
    ids = torch.tensor([[rows[0][0]] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    out = model.generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
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


def _distance(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of logits, relative to the largest of them."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-30))
