"""Writing a vector to a file of another library, and reading one."""

import math
import pickle
import struct
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from steer.algebra import (
    Composition,
    Direction,
    Provenance,
    Residual,
    Scope,
    Site,
    Term,
    Tuning,
    Vector,
    as_composition,
)
from steer.errors import (
    ArgumentError,
    CapabilityError,
    MissingExtraError,
    SteerError,
    VectorFileError,
)
from steer.exchange._registry import Format, checked_options, format_of
from steer.store import PathLike, path_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from steer.algebra._composition import Steerable

_UNREADABLE = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    OSError,
    struct.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


def write(what: "Steerable", path: PathLike, format: str | None = None, **options: object) -> None:
    """Write a vector, or a setting of several, to a file that another library reads.

    A vector is written as it is. A composition, or a mapping of vectors by domain, is written as
    the one vector Σ c v that adding it amounts to. What a file cannot carry is refused: gates,
    coefficients per prompt, operators other than `add`, scopes other than `all`, and whatever
    the format lacks. No file then appears.

    Args:
        what: A vector, or what `lm.steered` takes.
        path: The file, or the folder for formats that are folders.
        format: One of `formats()`; None takes the one that the ending of the name means.
        **options: Options of the format, as `docs/howto/exchange.md` lists them.

    Raises:
        ArgumentError: Unknown format or option, or one that the format needs is missing.
        CapabilityError: The format cannot carry this.
        VectorFileError: The file cannot be written.
        MissingExtraError: The format needs a package that is not installed.
    """
    target = path_of(path, VectorFileError)
    found = format_of(target, format)
    checked_options(found, "write", options)
    setting = as_composition(what)
    _check_plain(setting)
    for part in setting.parts.values():
        found.check(part.vector)
    assert found.write is not None  # checked with its options
    written: Vector | Composition = setting
    if found.terms != "models":
        written = what if isinstance(what, Vector) else _added(setting)
        found.check(written)
    try:
        found.write(written, target, **options)
    except UnicodeEncodeError as error:
        raise VectorFileError(
            f"{target}: a text cannot be written",
            found=f"half of a surrogate pair in {error.object!r}"[:120],
            expected="valid Unicode text",
            do="correct the options and the records of the vector: domain, method, model",
        ) from error


def read(
    path: PathLike, format: str | None = None, *, domain: str | None = None, **options: object
) -> Vector:
    """Read a vector from a file that another library wrote.

    The file is validated and nothing in it is executed. The vector has the layers of this library:
    *l* is the output of block *l*, counted from 0. Its provenance says `import` and what the file
    tells of its origin; it fits every model of its width.

    Args:
        path: The file, or the folder for formats that are folders.
        format: One of `formats()`; None takes the one that the ending of the name means.
        domain: The domain of the vector; None takes what the file says.
        **options: Options of the format, as `docs/howto/exchange.md` lists them.

    Raises:
        ArgumentError: Unknown format or option, or one that the format needs is missing.
        CapabilityError: The format cannot be read.
        VectorFileError: The file is damaged, of another format, or means something that a vector
            of this library does not.
        MissingExtraError: The format needs a package that is not installed.
    """
    source = path_of(path, VectorFileError)
    found = format_of(source, format)
    checked_options(found, "read", options)
    if domain is not None and not (isinstance(domain, str) and domain):
        raise ArgumentError(
            "the domain must be a name",
            found=f"domain={domain!r}"[:120],
            expected="a text that is not empty, or None",
            do="leave it out to take what the file says",
        )
    assert found.read is not None  # checked with its options
    with torch.inference_mode(False):  # its tensors outlive the call
        try:
            vector = found.read(source, **options)
        except (ArgumentError, MissingExtraError):
            raise
        except (SteerError, *_UNREADABLE) as error:
            raise _unreadable(source, found, error) from error
    from steer import __version__

    made = vector.provenance
    made = replace(
        made,
        method="import" if made.method == "unknown" else made.method,
        arguments={"format": found.name, "file": source.name, **made.arguments},
        domain=made.domain if domain is None else domain,
        version=__version__,
    )
    return replace(vector, provenance=made)


def imported(
    directions: "Mapping[int, Tensor]",
    *,
    domain: str | None = None,
    coefficient: float | None = None,
    scope: Scope | None = None,
    **hints: object,
) -> Vector:
    """Return the vector of directions that a file holds, with what the file says of them."""
    if not directions:
        raise VectorFileError(
            "the file holds no directions",
            found="none",
            expected="at least one layer",
            do="check that it is the file of a vector",
        )
    if not all(direction.numel() for direction in directions.values()):
        raise ValueError("a direction without values")
    if not isinstance(domain, str | None):
        raise ValueError(f"the domain {domain!r:.80}, not a text")
    if coefficient is not None and not math.isfinite(coefficient):
        raise ValueError(f"the coefficient {coefficient}")
    said = {name: value for name, value in hints.items() if value not in (None, "unknown")}
    if odd := [name for name, value in said.items() if not isinstance(value, str | int)]:
        raise ValueError(f"{odd[0]} {said[odd[0]]!r:.80}, not a text")
    made = Provenance(arguments=said, domain=domain or None)
    terms: dict[Site, Term] = {Residual(n): Direction(v.detach()) for n, v in directions.items()}
    tuning = None
    if coefficient is not None or scope is not None:
        layer = next(iter(directions)) if len(directions) == 1 else None
        tuning = Tuning(layer, 1.0 if coefficient is None else coefficient, scope=scope or Scope())
    return Vector(terms, made, tuning=tuning)


def _unreadable(source: "Path", format: Format, error: Exception) -> VectorFileError:
    """Return the error for a file that cannot be read, which begins with its name."""
    if isinstance(error, SteerError):
        what = error.what if error.what.startswith(f"{source}: ") else f"{source}: {error.what}"
        return VectorFileError(what, found=error.found, expected=error.expected, do=error.do)
    return VectorFileError(
        f"{source}: this is no file of the format {format.name!r}, or a damaged one",
        found=f"{type(error).__name__}: {error}"[:200],
        expected=f"a file of {format.what}",
        do="get the file again, or name the format that it has",
    )


def _added(setting: Composition) -> Vector:
    """Return the vector that adding a setting amounts to."""
    rows: list[float] = setting.coefficients[0].tolist()
    first, *others = (c * p.vector for c, p in zip(rows, setting.parts.values(), strict=True))
    return sum(others, start=first)


def _check_plain(setting: Composition) -> None:
    """Refuse what no file of directions carries: rows, gates, other operators, other scopes."""
    part, everywhere = "write steer.Part(vector)", "on the command line, pass --everywhere"
    rows, gated = setting.per_row, setting.gate is not None
    odd = [
        ("coefficients per prompt", "one coefficient of each domain", rows, "write one row"),
        ("a domain gate", "coefficients that hold for every prompt", gated, "leave the gate out"),
    ]
    for domain, own in setting.parts.items():
        odd += [
            (f"{domain}: the operator {own.operator!r}", "'add'", own.operator != "add", part),
            (
                f"{domain}: the scope '{own.scope}'",
                "'all'",
                not own.scope.everything,
                f"{part}; {everywhere}",
            ),
        ]
    for found, expected, is_odd, do in odd:
        if is_odd:
            raise CapabilityError(
                "an exchange file cannot carry this setting",
                found=found,
                expected=f"{expected}: its readers add one direction at every token",
                do=f"if adding it at every token is meant, {do}",
            )
