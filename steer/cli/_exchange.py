"""`steer export` and `steer import`."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from steer.cli._common import check_apart, say
from steer.cli._composed import composed, file_and_coefficient
from steer.errors import ArgumentError

Options = Annotated[
    list[str] | None,
    typer.Option("--with", help="NAME=VALUE, an option of the format; may be given several times."),
]

_INTEGER = re.compile(r"-?[0-9]{1,18}")


def export(
    files: Annotated[
        list[str],
        typer.Argument(help="FILE, or FILE:COEF of one or several vectors that are added up."),
    ],
    out: Annotated[Path, typer.Argument(help="The file to write; a folder for some formats.")],
    to: Annotated[
        str | None, typer.Option(help="The format; by default the one that OUT's ending means.")
    ] = None,
    everywhere: Annotated[
        bool,
        typer.Option(help="Write vectors that were tuned for some tokens only: others steer all."),
    ] = False,
    options: Options = None,
) -> None:
    """Write a vector, or the sum of several, to a file of another library."""
    from steer.algebra import Composition, Scope, Vector
    from steer.exchange import write
    from steer.exchange._registry import format_of

    given = _values(options, format_of(out, to).options("write"))
    check_apart(out, *(file_and_coefficient(file)[0] for file in files))
    what: Vector | Composition
    if len(files) == 1 and file_and_coefficient(files[0])[1] is None:
        what = vector = Vector.load(files[0])
        if everywhere and vector.tuning is not None:
            what = replace(vector, tuning=replace(vector.tuning, scope=Scope()))
    else:
        setting = composed(files, gate=False)
        assert setting is not None  # there is at least one file
        parts = {d: replace(part, scope=Scope()) for d, part in setting.parts.items()}
        what = replace(setting, parts=parts) if everywhere else setting
    write(what, out, to, **given)
    tuned = what.tuning if isinstance(what, Vector) else None
    unscaled = f", unscaled; it was tuned to coefficient {tuned.coefficient:.4g}" if tuned else ""
    say(f"written: {out}{unscaled}")


def import_vector(
    file: Annotated[Path, typer.Argument(help="A file of another library; a folder for some.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    origin: Annotated[
        str | None,
        typer.Option("--from", help="The format; by default the one that FILE's ending means."),
    ] = None,
    domain: Annotated[str | None, typer.Option(help="Domain of the vector.")] = None,
    options: Options = None,
) -> None:
    """Write a file of another library as a vector file; nothing in it is executed."""
    from steer.exchange import read
    from steer.exchange._registry import format_of

    if out.suffix != ".safetensors":
        raise ArgumentError(
            "an import writes a vector file",
            found=f"{out}, by its suffix another kind of file",
            expected="a name that ends in .safetensors",
            do=f"name it {out.parent / (out.stem or 'vector')}.safetensors",
        )
    given = _values(options, format_of(file, origin).options("read"))
    check_apart(out, file)
    vector = read(file, origin, domain=domain, **given)
    vector.save(out)
    say(vector)
    say(f"saved {out}")


def _values(options: list[str] | None, known: Mapping[str, inspect.Parameter]) -> dict[str, object]:
    """Return the options of a format: numbers where it takes some, everything else as text."""
    from steer.exchange._registry import accepts

    values: dict[str, object] = {}
    for option in options or ():
        name, equals, value = option.partition("=")
        if not equals:
            raise ArgumentError(
                "an option has no value",
                found=f"--with {option}",
                expected="--with NAME=VALUE",
                do="write for instance --with layer=14",
            )
        if name in values:
            raise ArgumentError(
                "an option is given twice",
                found=f"--with {option}",
                expected="each name once",
                do="leave one of them out",
            )
        number = name in known and not accepts(known[name].annotation, value)
        values[name] = int(value) if number and _INTEGER.fullmatch(value) else value
    return values
