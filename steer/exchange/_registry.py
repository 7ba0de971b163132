"""The registry of exchange formats: a format is one value, in a file of its own."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import torch

from steer._check import as_integer, one_of
from steer._registry import Registry
from steer.algebra import Direction, LowRank, Residual, Vector, tensors
from steer.errors import ArgumentError, CapabilityError

_CARRIED = {  # by what a format carries: what it expects, and what to do about the rest
    "directions": (
        "directions at residual sites",
        "write vector.residual; the format 'peft' carries low-rank weights",
    ),
    "factors": (
        "low-rank terms at weight sites",
        "write vector.weight, reduced with steer.low_rank(vector, rank=16) if it is dense",
    ),
    "models": ("weight sites", "write vector.weight"),
}


@dataclass(frozen=True, slots=True)
class Format:
    """An exchange format: how it is read and written, and what a file of it can carry.

    A vector that the format cannot carry is refused before `write` is called.

    Args:
        name: Its name, as `steer.exchange.write` and the command line take it.
        what: What reads such files, in a few words.
        suffixes: Endings of file names that mean this format; none for one that must be named.
        write: `write(vector, path, **options)` writes a file whole or not at all. None if the
            format is only read.
        read: `read(path, **options)` returns the vector of a file that nobody vouches for. None
            if the format is only written.
        terms: What it carries: `directions` at residual sites, `factors`, low-rank terms of
            weights, or `models`, whole differences of two models. For these, `write` takes the
            `Composition` in place of the vector that it adds up to.
        lowest: The lowest layer that it carries; −1 is the embedding output.
        single: Whether a file holds one layer alone.
        dtype: Precision of its values.
        keeps: What of a vector's records comes back: `domain`, `coefficient`.
    """

    name: str
    what: str
    suffixes: tuple[str, ...] = ()
    write: Callable[..., None] | None = None
    read: Callable[..., Vector] | None = None
    terms: Literal["directions", "factors", "models"] = "directions"
    lowest: int = 0
    single: bool = False
    dtype: torch.dtype = torch.float32
    keeps: tuple[str, ...] = ()

    def check(self, vector: Vector) -> None:
        """Refuse a vector that a file of this format cannot carry.

        Args:
            vector: The vector to be written.

        Raises:
            CapabilityError: It holds other sites or terms, a layer that is too low, or several
                layers where a file holds one.
        """
        for site, term in vector.terms.items():
            if isinstance(site, Residual) != (self.terms == "directions") or (
                self.terms == "factors" and not isinstance(term, LowRank)
            ):
                kind = type(term).__name__.lower()
                raise self.refused(f"{site}, a {kind} term", *_CARRIED[self.terms])
            if isinstance(term, Direction):
                name, kept = str(self.dtype).removeprefix("torch."), term.v.to(self.dtype)
                if not kept.isfinite().all():
                    raise self.refused(f"{site}, with values beyond {name}", name, "scale it down")
                if term.v.any() and not kept.any():
                    raise self.refused(f"{site}, which {name} rounds to 0", name, "scale it up")
            elif not all(part.isfinite().all() for part in tensors(term).values()):
                raise self.refused(f"{site}, with NaN or infinity", "finite numbers", "mend it")
        low = [layer for layer in vector.layers if layer < self.lowest]
        if low:
            raise self.refused(
                f"a direction at layer {low[0]}",
                f"layers from {self.lowest}, outputs of blocks counted from 0",
                f"leave it out: vector[{self.lowest}:]",
            )
        if self.single and len(vector.terms) > 1:
            raise self.refused(
                f"{len(vector.terms)} layers", "one layer in each file", "write vector[layer]"
            )

    def refused(self, found: object, expected: str, do: str) -> CapabilityError:
        """Return the error for what a file of this format cannot carry.

        Args:
            found: What the vector holds.
            expected: What the format carries instead.
            do: What the user can do about it.
        """
        return CapabilityError(
            f"the format {self.name!r} cannot carry this", found=found, expected=expected, do=do
        )

    def options(self, action: Literal["write", "read"]) -> Mapping[str, inspect.Parameter]:
        """Return the options of writing or reading, by name.

        Args:
            action: `write` or `read`.

        Raises:
            CapabilityError: The format is not written, or not read.
        """
        function = self.write if action == "write" else self.read
        if function is None:
            able = "read" if action == "write" else "written"
            raise CapabilityError(
                f"the format {self.name!r} cannot be {'written' if able == 'read' else 'read'}",
                found=f"a format that is only {able}",
                expected=" | ".join(n for n in formats() if getattr(get_format(n), action)),
                do="name another format",
            )
        try:
            parameters = inspect.signature(function, eval_str=True).parameters
        except NameError:  # annotations that only a type checker can resolve
            parameters = inspect.signature(function).parameters
        return {n: p for n, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


_FORMATS: Registry[Format] = Registry(
    "an exchange format", ArgumentError, register="register_format"
)


def register_format(format: Format) -> Format:
    """Register an exchange format under its name.

    Args:
        format: The format.

    Returns:
        The same format. Registering it again, as when a notebook cell is run twice, replaces the
        old one.

    Raises:
        ArgumentError: The name is taken.
    """
    functions = [function for function in (format.write, format.read) if function is not None]
    _FORMATS.add(format.name, format, *functions)
    return format


def formats() -> tuple[str, ...]:
    """Return the names of all exchange formats, sorted."""
    return _FORMATS.names()


def get_format(name: str) -> Format:
    """Return an exchange format by its name.

    Args:
        name: One of `formats()`.

    Raises:
        ArgumentError: There is none of that name.
    """
    return _FORMATS.get(name)


def format_of(path: Path, name: str | None) -> Format:
    """Return the format of a name, or the one that the ending of a file means."""
    if name is not None:
        return get_format(name)
    known = [get_format(other) for other in formats()]
    meant = [format for format in known if path.name.lower().endswith(format.suffixes or ("/",))]
    if len(meant) != 1:
        raise ArgumentError(
            f"{path}: the name does not tell the format",
            found=" and ".join(format.name for format in meant) or f"the ending {path.suffix!r}",
            expected=" | ".join(format.name for format in (meant or known)),
            do="name the format: format='…', or --to and --from on the command line",
        )
    return meant[0]


def checked_options(
    format: Format, action: Literal["write", "read"], options: Mapping[str, object]
) -> None:
    """Refuse options that a format does not have or of another type, and the lack of one."""
    known = format.options(action)
    for name, value in options.items():
        one_of(f"an option of {format.name}", name, known)
        kind = known[name].annotation
        if not accepts(kind, value):
            raise ArgumentError(
                f"{name} is not what the format {format.name!r} takes",
                found=f"{name}={value!r}"[:120],
                expected=inspect.formatannotation(kind).replace("typing.", ""),
                do=f"pass {name} as this",
            )
    missing = [n for n, p in known.items() if p.default is p.empty and n not in options]
    if missing:
        raise ArgumentError(
            f"the format {format.name!r} needs an option that is not given",
            found=f"options {sorted(options)}",
            expected=" and ".join(missing),
            do=f"pass {missing[0]}=…, or --with {missing[0]}=… on the command line",
        )


def accepts(kind: Any, value: object) -> bool:
    """Return whether a value is of an annotated type; a form that is not known here takes all."""
    if get_origin(kind) in (Union, UnionType):
        return any(accepts(one, value) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return value in list(get_args(kind))
    if kind is int:
        return as_integer(value) is not None
    known = isinstance(kind, type) and kind is not inspect.Parameter.empty
    return isinstance(value, kind) if known else True
