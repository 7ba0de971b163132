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

from steer.algebra._file.layout import RECORDING_KEY
from steer.extract._kept import KeptPairs
from steer.extract._moments import Moments
from steer.extract._shuffled import Shuffled
from steer.store import PathLike
from steer.store._described import (
    about,
    check_described,
    check_storable,
    described_header,
    opened,
    read_description,
    read_tensors,
    write_tensors,
)
from steer.store._refusals import wrong

if TYPE_CHECKING:
    from steer.extract._activations import Activations
    from steer.extract._document import MomentsRecord

VERSION = 2
MOMENTS = ("half.even", "half.odd", "mean_chosen", "mean_rejected", "norm", "second")
PAIRS, SHUFFLED = "pairs", "shuffled"  # tensors of one entry
_POSITIVE = ("norm", "second")  # whose values are lengths or squares


def save_recording(recording: "Activations", path: PathLike) -> None:
    """Write recorded activations to a `.safetensors` file, atomically."""
    from steer.extract._document import described

    with about(path):
        tensors = _tensors(recording)
        for name, tensor in tensors.items():
            check_storable(name, tensor)
        _check_positive(tensors)
        header = described_header(RECORDING_KEY, described(recording, tensors), tensors)
        write_tensors(path, header, tensors)


def load_recording(path: PathLike) -> dict[str, Any]:
    """Return the fields of the `Activations` that `save_recording` wrote, validated."""
    from steer.extract._document import read_document

    with about(path), opened(path) as (file, size):
        value, container = read_description(file, size, RECORDING_KEY, VERSION)
        fields, entries, infos = read_document(value)
        check_described(container, infos)
        tensors = read_tensors(file, container, infos)
        _check_positive(tensors)
    keys = [(entry.domain, entry.position) for entry in entries]
    moments = {key: _moments(entries[k], k, tensors) for k, key in enumerate(keys)}
    kept = None
    if name_of(PAIRS, 0) in tensors:
        kept = {key: KeptPairs(*tensors[name_of(PAIRS, k)]) for k, key in enumerate(keys)}
    return fields | {"moments": moments, "kept": kept}


def name_of(kind: str, entry: int) -> str:
    """Return the name of a tensor of one entry."""
    return f"{kind}.{entry}"


def dtype_of(name: str) -> str:
    """Return the dtype of a tensor by its name, as the file calls it."""
    return "F32" if name.startswith(PAIRS) else "F64"


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
            tensors[name_of(SHUFFLED, k)] = m.shuffled.sums.double().contiguous()
    for k, key in enumerate(recording.moments if recording.kept is not None else ()):
        pairs = (recording.kept or {})[key]
        tensors[name_of(PAIRS, k)] = torch.stack([pairs.chosen, pairs.rejected]).float()
    return tensors


def _check_positive(tensors: Mapping[str, Tensor]) -> None:
    for name in _POSITIVE:
        if bool((tensors[name] < 0).any()):
            raise wrong(f"tensors.{name}", "a negative value", "values of at least 0")


def _moments(entry: "MomentsRecord", k: int, tensors: Mapping[str, Tensor]) -> Moments:
    even, odd, chosen, rejected, norm, second = (tensors[name][k] for name in MOMENTS)
    sums = tensors.get(name_of(SHUFFLED, k))
    shuffled = None if sums is None else Shuffled(tuple(entry.signs or ()), sums)
    first, other = entry.halves
    halves, counts = (even, odd), (first, other)
    return Moments(entry.pairs, chosen, rejected, second, halves, counts, norm, shuffled)
