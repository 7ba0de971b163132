"""Recording: one pass over preference pairs, and what is kept of it."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from steer.architecture import Architecture
from steer.engine.base import check_evaluating, in_place, unsteered
from steer.engine.packed import read_packed
from steer.engine.packing import Packing, packing_of, position_limit, scaled_by_length
from steer.engine.padded import read_padded
from steer.engine.reading import Means, Place, device_of, keep_freed_memory
from steer.engine.tree import unique_tokens
from steer.errors import RecordingError
from steer.listed import listed
from steer.moments import Moments
from steer.pairs import Pair, Pairs, as_pairs
from steer.positions import POSITIONS, At, Unit, plan
from steer.provenance import ModelInfo
from steer.shown import Shown
from steer.store import Recording, load_recording, save_recording

if TYPE_CHECKING:
    import os

    from steer.model import Model
    from steer.show.card import Card

__all__ = ["POSITIONS", "Activations", "record"]

_READ_BYTES = 32 * 2**20  # of averages held at once, before they are merged into the moments
_MAX_TOKENS = {"cpu": 1024}
_MAX_TOKENS_ELSEWHERE = 8192
_SORTED = 8  # padded batches whose sequences are sorted by length together
Read = Callable[[Sequence[Sequence[int]], Sequence[Place]], Means]
_Key = tuple[str | None, str]


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Activations(Shown):
    """Moments of the residual stream over preference pairs, by domain and position.

    Args:
        moments: The moments of each `(domain, position)`.
        layers: The layers recorded (block outputs, 0-based), ascending: the rows of the moments.
        pairs_fingerprints: SHA-256 of the pairs of each domain; of recordings that were joined, of
            the fingerprints of both.
        model: The model they were recorded on.
        path: `packed`, or `padded: ` and why.
    """

    moments: Mapping[_Key, Moments]
    layers: tuple[int, ...]
    pairs_fingerprints: Mapping[str | None, str]
    model: ModelInfo | None
    path: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "moments", MappingProxyType(dict(self.moments)))
        fingerprints = MappingProxyType(dict(self.pairs_fingerprints))
        object.__setattr__(self, "pairs_fingerprints", fingerprints)

    def __reduce__(self) -> tuple[object, ...]:
        maps = dict(self.moments), self.layers, dict(self.pairs_fingerprints)
        return (Activations, (*maps, self.model, self.path))

    def __add__(self, other: "Activations") -> "Activations":
        """Return two recordings of different pairs as one.

        A domain that both have counts the pairs of both; its fingerprint is then made of theirs.

        Raises:
            RecordingError: Models, positions or layers differ, or a domain's pairs are the same.
        """
        if not isinstance(other, Activations):
            return NotImplemented
        _check_alike(self, other)
        moments, marks = dict(self.moments), dict(self.pairs_fingerprints)
        for key, found in other.moments.items():
            moments[key] = moments[key].merge(found) if key in moments else found
        for domain, mark in other.pairs_fingerprints.items():
            both = f"{marks[domain]}\n{mark}" if domain in marks else None
            marks[domain] = mark if both is None else hashlib.sha256(both.encode()).hexdigest()
        path = self.path if self.path == other.path else f"{self.path}; {other.path}"
        return Activations(moments, self.layers, marks, self.model, path)

    def __radd__(self, other: int) -> "Activations":
        return self if type(other) is int and other == 0 else NotImplemented  # sum() begins so

    @property
    def domains(self) -> tuple[str | None, ...]:
        """The domains recorded; pairs without one are `None`."""
        return tuple(dict.fromkeys(domain for domain, _ in self.moments))

    @property
    def positions(self) -> tuple[str, ...]:
        """Labels of the positions recorded, in the order asked for."""
        return tuple(dict.fromkeys(position for _, position in self.moments))

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return next(iter(self.moments.values())).second.shape[-1]

    def of(self, domain: str | None = None, position: str | None = None) -> Moments:
        """Return the moments of one domain at one position.

        Args:
            domain: The domain; may be left out if there is one only.
            position: The position; may be left out if there is one only.

        Raises:
            RecordingError: There is no such domain or position, or more than one to choose from.
        """
        if position is not None and (domain, position) in self.moments and domain is not None:
            return self.moments[domain, position]  # not searched for among all the others
        return self.moments[self.domain(domain), self.position(position)]

    def domain(self, name: str | None = None) -> str | None:
        """Return the domain meant by a name that may be left out.

        Args:
            name: The domain; None means the only one.

        Raises:
            RecordingError: There is no such domain, or more than one to choose from.
        """
        return _one("domain", name, self.domains)

    def position(self, name: str | None = None) -> str:
        """Return the position meant by a label that may be left out.

        Args:
            name: The label; None means the only one.

        Raises:
            RecordingError: There is no such position, or more than one to choose from.
        """
        return str(_one("position", name, self.positions))

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write the recording to a self-describing `.safetensors` file, atomically.

        Args:
            path: Where to write; the name should end in `.safetensors`.

        Raises:
            VectorFileError: The file cannot be written, or a value is not finite.
        """
        found = self.moments, self.layers, self.pairs_fingerprints, self.model, self.path
        save_recording(Recording(*found), path)

    @classmethod
    def load(cls, path: "str | os.PathLike[str]") -> "Activations":
        """Read a recording from a file that `save` wrote; all is validated, nothing unpickled.

        Args:
            path: The file.

        Returns:
            The recording as it was saved, bit for bit.

        Raises:
            VectorFileError: The file is damaged, foreign, of a newer version or holds values that
                cannot be used.
        """
        found = load_recording(path)
        marks = found.pairs_fingerprints
        return cls(found.moments, found.layers, marks, found.model, found.path)

    def _card(self) -> "Card":
        from steer.show.activations import activations_card

        return activations_card(self.moments, self.layers, self.model, self.path)


def record(
    model: "Model",
    pairs: Iterable[Pair],
    at: At = "template",
    *,
    layers: Sequence[int] | None = None,
    progress: bool = True,
    max_tokens: int | None = None,
    packing: bool | None = None,
) -> Activations:
    """Record the residual stream of preference pairs in one pass: all layers, domains, positions.

    Positions are `template` (the response alone as the user's message, read at each template
    token after it, labelled `template[-1]`, `template[-2]`, …; arXiv 2509.23982), such a label,
    `response_mean`, `response_first`, `response_last`, `prompt_last` (the token before the
    response), or a function from an `Exchange` to the indices of the tokens to average.

    Only float64 moments are kept: domains × positions × layers × d_model. What texts of one
    forward share at their start is computed once.

    Args:
        model: The model, in evaluation mode and not steered; it is left as it was.
        pairs: The pairs.
        at: One position or several.
        layers: Layers wanted (block outputs, 0-based), all by default. Nothing after the last
            is computed.
        progress: Whether to show a progress bar, if the output is a terminal.
        max_tokens: Tokens of one forward; a longer text runs alone. By default 1024 on a CPU,
            where larger ones leave the caches, and 8192 elsewhere.
        packing: Whether to pack texts into one row; None packs where the model can
            (see `packing_report`).

    Returns:
        The moments.

    Raises:
        RecordingError: No pairs, an unknown position or layer, a model in training mode, a text
            longer than the model's positions, values that are not finite, `max_tokens` below 1, or
            `packing=True` for a model that cannot.
        SteeringError: The model is being steered.
        CapabilityError: The model's engine does not work on its modules.
        TextError: A pair cannot be encoded.
        PairsError: Some pairs name a domain and others none.
        SelectionError: Pairs or layers are given as one value and in no sequence.
    """
    in_place(model.engine, "recording")
    unsteered(model.engine, "record")
    pairs = as_pairs(pairs)
    architecture = model.architecture
    wanted = _checked(architecture, pairs, layers)
    domains: tuple[str | None, ...] = pairs.domains or (None,)
    positions, units = plan(model.tokenizer, pairs, at)
    longest = max(len(ids) for unit in units for ids in unit.sequences)
    _check_length(architecture, longest)
    if max_tokens is not None and not (_whole(max_tokens) and max_tokens > 0):
        raise RecordingError(
            "max_tokens is no number of tokens",
            found=f"max_tokens={max_tokens!r}",
            expected="an integer of at least 1",
            do="leave it out; a text longer than that runs alone",
        )
    if max_tokens is None:
        max_tokens = _MAX_TOKENS.get(device_of(architecture).type, _MAX_TOKENS_ELSEWHERE)
    path, read = _reader(architecture, wanted, longest, max_tokens, packing)
    room = max(1, _READ_BYTES // (8 * len(wanted) * architecture.d_model))
    limit = max_tokens if path == "packed" else _SORTED * max_tokens
    moments: dict[_Key, Moments] = {}
    keep_freed_memory()
    for batch in _shown(_batches(units, limit, room), units, progress):
        _take(moments, batch, positions, _read(batch, read))
    _check_finite(moments, wanted)
    return Activations(
        {(d, p): moments[d, p] for d in domains for p in positions},
        wanted,
        {domain: part.fingerprint for domain, part in pairs.by_domain().items()},
        getattr(model, "info", None),
        path,
    )


def packing_report(model: "Model", longest: int = 32) -> Packing:
    """Return whether recording packs this model's texts, and if not, why.

    Args:
        model: The model.
        longest: Longest text to be recorded, in tokens.
    """
    return packing_of(model.architecture, longest)


def _check_alike(left: Activations, right: Activations) -> None:
    """Refuse to join recordings of unlike things, or of the same pairs."""
    for what, a, b in (
        ("models", left.model, right.model),
        ("positions", left.positions, right.positions),
        ("layers", left.layers, right.layers),
    ):
        if a != b:
            raise RecordingError(
                f"recordings of different {what} cannot be joined",
                found=f"{a} and {b}",
                expected="one model, the same positions and the same layers",
                do="record both in the same way",
            )
    marks = left.pairs_fingerprints
    twice = [d for d, mark in right.pairs_fingerprints.items() if marks.get(d) == mark]
    if twice:
        raise RecordingError(
            "both recordings are of the same pairs",
            found=f"domains {twice}",
            expected="different pairs, or other domains",
            do="keep one of the two",
        )


def _one(what: str, name: str | None, known: Sequence[str | None]) -> str | None:
    if name in known:
        return name
    if name is None and len(known) == 1:
        return known[0]
    raise RecordingError(
        f"there is no such {what}" if name is not None else f"there is more than one {what}",
        found=repr(name),
        expected=f"one of {', '.join(map(repr, known))}",
        do=f"name it: {what}={known[0]!r}",
    )


def _checked(
    architecture: Architecture, pairs: Pairs, layers: Sequence[int] | None
) -> tuple[int, ...]:
    """Return the layers wanted, ascending, after checking what recording needs."""
    if not len(pairs):
        raise RecordingError(
            "there are no pairs to record",
            found="0 pairs",
            expected="at least one pair",
            do="check the file that they were loaded from",
        )
    check_evaluating(architecture, RecordingError)
    everything = range(architecture.n_layers)
    wanted = listed("layers", everything if layers is None else layers)
    if not wanted or not all(_whole(layer) and layer in everything for layer in wanted):
        raise RecordingError(
            "there is no such layer",
            found=f"layers={layers!r}",
            expected=f"layers from 0 to {architecture.n_layers - 1}",
            do="count the blocks from 0; layer l is the output of block l",
        )
    return tuple(sorted({int(layer) for layer in wanted}))


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_length(architecture: Architecture, longest: int) -> None:
    limit = position_limit(architecture)
    if limit is not None and longest > limit:
        raise RecordingError(
            "a text is longer than the model's positions",
            found=f"{longest} tokens",
            expected=f"at most {limit}",
            do="leave the longest pairs out, or shorten them",
        )


def _reader(
    architecture: Architecture,
    layers: Sequence[int],
    longest: int,
    max_tokens: int,
    packing: bool | None,
) -> tuple[str, Read]:
    """Return how the texts are run, in words and as a function."""
    found = Packing(False, "asked for by packing=False", longest)
    if packing is not False:
        found = packing_of(architecture, longest)
    if packing and not found.packed:
        raise RecordingError(
            "this model cannot be packed",
            found=found.reason,
            expected="packed forwards that equal plain ones",
            do="leave packing out: texts then run side by side, padded",
        )
    if found.packed:
        return "packed", lambda ids, places: read_packed(architecture, ids, places, layers)
    width = 1 if scaled_by_length(architecture, longest) else max_tokens
    return str(found), lambda ids, places: read_padded(
        architecture, ids, places, layers, max_tokens=width
    )


def _batches(units: Sequence[Unit], max_tokens: int, room: int) -> Iterator[list[Unit]]:
    """Yield units in order, in even batches within `max_tokens` tokens and `room` averages."""
    costs = [unique_tokens(unit.sequences) for unit in units]
    even = sum(costs) / math.ceil(sum(costs) / max_tokens)
    batch: list[Unit] = []
    tokens = places = 0
    for unit, more in zip(units, costs, strict=True):
        enough = tokens + more > max_tokens or tokens + more / 2 > even
        if batch and (enough or places + len(unit.places) > room):
            yield batch
            batch, tokens, places = [], 0, 0
        batch.append(unit)
        tokens, places = tokens + more, places + len(unit.places)
    yield batch


def _shown(
    batches: Iterator[list[Unit]], units: Sequence[Unit], progress: bool
) -> Iterator[list[Unit]]:
    """Yield batches while a progress bar counts their pairs; it disappears at the end."""
    from tqdm import tqdm

    hidden = None if progress else True  # None: hidden where the output is no terminal
    with tqdm(total=len(units), desc="recording", unit="pair", leave=False, disable=hidden) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))


def _read(batch: Sequence[Unit], read: Read) -> Means:
    """Return the averages of a batch: for each unit its places, in order."""
    sequences: list[tuple[int, ...]] = []
    places: list[Place] = []
    for unit in batch:
        places += (Place(p.sequence + len(sequences), p.tokens) for p in unit.places)
        sequences += unit.sequences
    return read(sequences, places)


def _take(
    moments: dict[_Key, Moments], batch: Sequence[Unit], positions: Sequence[str], means: Means
) -> None:
    """Merge the averages of a batch into the moments."""
    sides = (len(batch), 2, len(positions))
    residual, norm = means.residual.unflatten(0, sides), means.norm.unflatten(0, sides)
    of_domain: dict[str | None, list[int]] = {}
    for i, unit in enumerate(batch):
        of_domain.setdefault(unit.domain, []).append(i)
    for domain, own in of_domain.items():
        numbers = [batch[i].number for i in own]
        for p, position in enumerate(positions):
            chosen, rejected = residual[own, 0, p], residual[own, 1, p]
            new = Moments.of(chosen, rejected, norm[own, :, p].mean(dim=1), numbers)
            old = moments.get((domain, position))
            moments[domain, position] = new if old is None else old.merge(new)


def _check_finite(moments: Mapping[_Key, Moments], layers: Sequence[int]) -> None:
    for (domain, position), found in moments.items():
        bad = ~torch.isfinite(found.mean_chosen + found.mean_rejected).all(dim=-1)
        if bad.any():
            raise RecordingError(
                "the residual stream is not finite",
                found=f"layer {layers[int(bad.nonzero()[0])]}, {position}, domain {domain!r}",
                expected="finite numbers",
                do="load the model with dtype=torch.float32 or torch.bfloat16",
            )
