"""One file for each domain, named after it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from steer.errors import CompositionError, VectorFileError
from steer.store import folder_made, path_of

if TYPE_CHECKING:
    from steer.algebra._vector import Vector


def save_by_domain(vectors: "Mapping[str, Vector]", folder: str | os.PathLike[str]) -> None:
    """Write each vector to `<folder>/<domain>.safetensors`."""
    folder = path_of(folder, VectorFileError)
    if folder.suffix == ".safetensors":
        raise VectorFileError(
            "a folder is wanted, in which each domain gets a file",
            found=str(folder),
            expected="the name of a folder",
            do=f"save({str(folder.parent / folder.stem)!r}), or save one vector under this name: "
            "vector.save(…)",
        )
    for name in vectors:
        check_file_name(name)
    folder_made(folder, VectorFileError)
    for name, vector in vectors.items():
        vector.save(folder / f"{name}.safetensors")


def check_file_name(domain: str) -> None:
    """Refuse a domain's name that would write elsewhere than into the folder asked for."""
    if Path(domain).name != domain or domain == ".." or "\\" in domain:
        raise CompositionError(
            "this domain's name cannot be a part of a file name",
            found=repr(domain),
            expected="a name without / and \\, and not ..",
            do="rename the domain, or save its vector alone under a name of your choice",
        )
