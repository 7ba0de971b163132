"""Recorded activations: statistics of the residual stream over preference pairs."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from steer.algebra import ModelInfo
from steer.errors import RecordingError
from steer.extract._data_checks import problems
from steer.extract._file import load_recording, save_recording
from steer.extract._moments import KeptPairs, Moments
from steer.extract._responses import Responses
from steer.show import Shown

if TYPE_CHECKING:
    import os

    from steer.show import Card

_Key = tuple[str | None, str]
_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Activations(Shown):
    """Moments of the residual stream over preference pairs, by domain and position.

    Args:
        moments: The moments of each `(domain, position)`.
        layers: The recorded layers (block outputs, 0-based), ascending; the rows of the moments.
        recordings: SHA-256 of the pairs of each recording in a domain, ascending.
        model: The model that was recorded.
        path: `packed`, or `padded: ` and the reason.
        kept: Activations of single pairs by `(domain, position)`; None unless `record` was called
            with `keep="pairs"`.
        responses: Counts over the texts of the responses by domain, where they are known.
    """

    moments: Mapping[_Key, Moments]
    layers: tuple[int, ...]
    recordings: Mapping[str | None, tuple[str, ...]]
    model: ModelInfo | None
    path: str
    kept: Mapping[_Key, KeptPairs] | None = None
    responses: Mapping[str | None, Responses] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("moments", "recordings", "responses", "kept"):
            if (found := getattr(self, name)) is not None:
                object.__setattr__(self, name, MappingProxyType(dict(found)))

    def __reduce__(self) -> tuple[object, ...]:
        values = (getattr(self, field.name) for field in fields(self))
        return (Activations, tuple(dict(v) if isinstance(v, Mapping) else v for v in values))

    def __add__(self, other: "Activations") -> "Activations":
        """Return two recordings of different pairs as one.

        A domain in both holds the pairs of both. Its fingerprint depends on those of all its
        recordings, in any order. Kept pairs are concatenated.

        Raises:
            RecordingError: Models, positions, layers or widths differ, only one recording keeps
                its pairs, or both hold the same recording of a domain.
        """
        if not isinstance(other, Activations):
            return NotImplemented
        _check_alike(self, other)
        kept = None
        if self.kept is not None and other.kept is not None:
            kept = _joined(self.kept, other.kept, KeptPairs.join)
        unknown = {d for a in (self, other) for d in a.recordings if d not in a.responses}
        responses = _joined(self.responses, other.responses, Responses.join)
        return Activations(
            _joined(self.moments, other.moments, Moments.merge),
            self.layers,
            _joined(self.recordings, other.recordings, lambda a, b: tuple(sorted((*a, *b)))),
            self.model,
            self.path if self.path == other.path else f"{self.path}; {other.path}",
            kept,
            {domain: found for domain, found in responses.items() if domain not in unknown},
        )

    def __radd__(self, other: int) -> "Activations":
        return self if type(other) is int and other == 0 else NotImplemented  # sum() begins so

    @property
    def pairs_fingerprints(self) -> Mapping[str | None, str]:
        """SHA-256 of the pairs of each domain, or of the fingerprints of its recordings."""
        return {
            domain: marks[0]
            if len(marks) == 1
            else hashlib.sha256("\n".join(marks).encode()).hexdigest()
            for domain, marks in self.recordings.items()
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems of the pairs, one sentence each; see `steer.errors.DataWarning`."""
        return problems(self.moments, self.responses)

    @property
    def domains(self) -> tuple[str | None, ...]:
        """The recorded domains; None stands for pairs without a domain."""
        return tuple(dict.fromkeys(domain for domain, _ in self.moments))

    @property
    def positions(self) -> tuple[str, ...]:
        """Labels of the recorded positions, in the order of `at`."""
        return tuple(dict.fromkeys(position for _, position in self.moments))

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return next(iter(self.moments.values())).second.shape[-1]

    def of(self, domain: str | None = None, position: str | None = None) -> Moments:
        """Return the moments of one domain at one position.

        Args:
            domain: The domain; may be omitted if there is only one.
            position: The position; may be omitted if there is only one.

        Raises:
            RecordingError: There is no such domain or position, or more than one to choose from.
        """
        if position is not None and (domain, position) in self.moments and domain is not None:
            return self.moments[domain, position]  # not searched for among all the others
        return self.moments[self.domain(domain), self.position(position)]

    def pairs(self, domain: str | None = None, position: str | None = None) -> KeptPairs:
        """Return the activations of the single pairs of one domain at one position.

        Args:
            domain: The domain; may be omitted if there is only one.
            position: The position; may be omitted if there is only one.

        Raises:
            RecordingError: The pairs were not kept, there is no such domain or position, or more
                than one to choose from.
        """
        key = self.domain(domain), self.position(position)
        if self.kept is None:
            raise RecordingError(
                "this recording does not keep the activations of single pairs",
                found="means and variances over the pairs",
                expected="a recording made with keep='pairs'",
                do="record again: steer.record(model, pairs, keep='pairs')",
            )
        return self.kept[key]

    def domain(self, name: str | None = None) -> str | None:
        """Return a domain by its name, or the only domain.

        Args:
            name: The domain; None means the only one.

        Raises:
            RecordingError: There is no such domain, or more than one to choose from.
        """
        return _one("domain", name, self.domains)

    def position(self, name: str | None = None) -> str:
        """Return a position by its label, or the only position.

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
        save_recording(self, path)

    @classmethod
    def load(cls, path: "str | os.PathLike[str]") -> "Activations":
        """Read a recording from a file that `save` wrote; everything is validated.

        Args:
            path: The file.

        Returns:
            The recording as it was saved, bit for bit.

        Raises:
            VectorFileError: The file is damaged, foreign, of a newer version, or holds invalid
                values.
        """
        return cls(**load_recording(path))

    def _card(self) -> "Card":
        from steer.extract._card import activations_card

        return activations_card(self)


def _check_alike(left: Activations, right: Activations) -> None:
    """Raise unless two recordings match in all but their pairs."""
    for what, a, b in (
        ("models", left.model, right.model),
        ("positions", left.positions, right.positions),
        ("layers", left.layers, right.layers),
        ("widths", _widths(left), _widths(right)),
        ("content", *(f"means{' and pairs' * (a.kept is not None)}" for a in (left, right))),
    ):
        if a != b:
            raise RecordingError(
                f"recordings of different {what} cannot be added",
                found=f"{a} and {b}",
                expected="one model, the same positions, layers and width",
                do="record both in the same way",
            )
    known = left.recordings
    twice = [d for d, marks in right.recordings.items() if set(marks) & set(known.get(d, ()))]
    if twice:
        raise RecordingError(
            "both recordings hold the same pairs",
            found=f"domains {twice}",
            expected="different pairs, or other domains",
            do="add each recording once",
        )


def _joined(
    left: Mapping[_K, _V], right: Mapping[_K, _V], join: Callable[[_V, _V], _V]
) -> dict[_K, _V]:
    """Return the items of both mappings; what both have is joined."""
    both = {key: join(left[key], right[key]) for key in left if key in right}
    return {**left, **right, **both}


def _widths(activations: Activations) -> list[int]:
    return sorted({m.second.shape[-1] for m in activations.moments.values()})


def _one(what: str, name: str | None, known: Sequence[str | None]) -> str | None:
    if name in known:
        return name
    if name is None and len(known) == 1:
        return known[0]
    raise RecordingError(
        f"there is no such {what}" if name is not None else f"there is more than one {what}",
        found=repr(name),
        expected=f"one of {', '.join(map(repr, known))}",
        do="leave it out" if set(known) == {None} else f"name it: {what}={known[0]!r}",
    )
