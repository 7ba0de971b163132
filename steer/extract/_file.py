"""Recorded activations as a file: float64 moments with a description, verified when read.

The moments of all domains and positions are stacked in six tensors: five `[entry layer d_model]`,
and `norm` `[entry layer]`. Format version 2 adds counts over the responses of each domain, and two
tensors of entry k: `shuffled.<k>`, the sums of its label-shuffled controls in float64,
`[16 layer d_model]` at up to four layers, and `pairs.<k>`, single pairs in float32,
`[2 pair layer d_model]`, chosen before rejected.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from steer.extract._moments import KeptPairs, Moments
from steer.extract._shuffled import Shuffled
from steer.store import PathLike
from steer.store._described import about, reading, save_described
from steer.store._refusals import wrong

if TYPE_CHECKING:
    from steer.extract._activations import Activations

VERSION = 2
KEY = "steer.activations"
MOMENTS = ("half.even", "half.odd", "mean_chosen", "mean_rejected", "norm", "second")


def save_recording(recording: "Activations", path: PathLike) -> None:
    """Write recorded activations to a `.safetensors` file, atomically."""
    from steer.extract._document import described

    with about(path):
        tensors = _tensors(recording)
        _check_positive(tensors)
        save_described(path, KEY, tensors, lambda infos: described(recording, infos))


def load_recording(path: PathLike) -> dict[str, Any]:
    """Return the fields of the `Activations` that `save_recording` wrote, validated."""
    from steer.extract._document import RecordingRecord

    with reading(path, KEY, VERSION, RecordingRecord) as file:
        record, tensors = file.record, file.tensors()
        _check_positive(tensors)
    moments, kept = {}, {}
    for k, entry in enumerate(record.moments):
        even, odd, chosen, rejected, norm, second = (tensors[name][k] for name in MOMENTS)
        signs, (first, other) = entry.signs, entry.halves
        moments[entry.domain, entry.position] = Moments(
            entry.pairs,
            chosen,
            rejected,
            second,
            (even, odd),
            (first, other),
            norm,
            None if signs is None else Shuffled(tuple(signs), tensors[f"shuffled.{k}"]),
        )
        if record.keeps_pairs:
            kept[entry.domain, entry.position] = KeptPairs(*tensors[f"pairs.{k}"])
    return {
        "moments": moments,
        "layers": tuple(record.layers),
        "recordings": {part.domain: tuple(part.recordings) for part in record.domains},
        "model": record.model and record.model.info,
        "path": record.path,
        "kept": kept or None,
        "responses": {p.domain: p.responses.responses for p in record.domains if p.responses},
    }


def _tensors(recording: "Activations") -> dict[str, Tensor]:
    """Return all tensors of a recording by name, in the order in which they are written."""
    moments = list(recording.moments.values())
    if not moments:
        raise wrong("moments", "no moments", "at least one domain at one position")
    columns = [(*m.halves, m.mean_chosen, m.mean_rejected, m.norm, m.second) for m in moments]
    named = zip(MOMENTS, zip(*columns, strict=True), strict=True)
    tensors = {name: torch.stack(column).double() for name, column in named}
    for k, m in enumerate(moments):
        if m.shuffled is not None:
            tensors[f"shuffled.{k}"] = m.shuffled.sums.double().contiguous()
    if recording.kept is not None:
        for k, pairs in enumerate(recording.kept[key] for key in recording.moments):
            tensors[f"pairs.{k}"] = torch.stack([pairs.chosen, pairs.rejected]).float()
    return tensors


def _check_positive(tensors: Mapping[str, Tensor]) -> None:
    for name in ("norm", "second"):  # lengths, and squares
        if bool((tensors[name] < 0).any()):
            raise wrong(f"tensors.{name}", "a negative value", "values of at least 0")
