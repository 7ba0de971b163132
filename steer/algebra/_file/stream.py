"""Writing a vector file term by term, for vectors that do not fit into memory."""

import torch
from torch import Tensor

from steer.algebra._file.file import header_of, named_tensors
from steer.algebra._provenance import Provenance
from steer.algebra._site import Site
from steer.algebra._term import Term, tensors
from steer.algebra._vector import Vector
from steer.errors import VectorFileError
from steer.store import AtomicFile, PathLike
from steer.store._container import tensor_bytes
from steer.store._described import about, describe_tensor


class VectorWriter:
    """Writes terms as they come; the file appears under its name when `finish` has written all.

    The header stands in front of the tensors and holds their checksums, so its place is kept free
    and filled at the end; what is left of it are spaces. Terms that come in the order of their
    tensors' names, all of those announced, give the bytes that `save` writes.

    Args:
        path: Where to write.
        most: A vector that bounds the header: every site that may come, of that shape or a larger
            one, with records at least as long. Its tensors may be on the meta device.

    Raises:
        VectorFileError: The file cannot be written.
    """

    def __init__(self, path: PathLike, most: Vector) -> None:
        self._path = path
        self._out = AtomicFile(path, VectorFileError)
        self._terms: dict[Site, Term] = {}
        self._tensors: dict[str, Tensor] = {}
        self._infos: dict[str, object] = {}
        largest = named_tensors(most)
        infos = {name: describe_tensor(name, tensor) for name, tensor in largest.items()}
        with about(path):
            self._space = len(header_of(most, largest, infos))

    def __enter__(self) -> "VectorWriter":
        self._out.__enter__()
        self._out.file.seek(self._space)
        return self

    def add(self, site: Site, term: Term) -> None:
        """Write one term.

        Args:
            site: Where it stands.
            term: The term; it is not kept.

        Raises:
            VectorFileError: The site was written already, or a value is not finite.
        """
        with about(self._path):
            if site in self._terms:
                raise _misuse(f"{site} twice", "each site once")
            for part, tensor in sorted(tensors(term).items()):
                name = f"{site}.{part}"
                data = tensor_bytes(tensor)
                self._infos[name] = describe_tensor(name, tensor, data)
                self._out.write(data)
                self._tensors[name] = _shape_of(tensor)
            self._terms[site] = type(term)(**{k: _shape_of(t) for k, t in tensors(term).items()})

    def finish(self, provenance: Provenance) -> None:
        """Write the header, and give the file its name.

        Args:
            provenance: How the vector was made.

        Raises:
            VectorFileError: The header is longer than announced, or the file cannot be written.
        """
        with about(self._path):
            vector = Vector(self._terms, provenance)
            header = header_of(vector, self._tensors, self._infos, size=self._space)
            if len(header) != self._space:
                raise _misuse(f"a header of {len(header)} bytes", f"at most {self._space}")
            self._out.file.seek(0)
            self._out.write(header)
            self._out.commit()

    def __exit__(self, *error: object) -> None:
        self._out.__exit__(*error)


def _shape_of(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _misuse(found: str, expected: str) -> VectorFileError:
    return VectorFileError(
        "the vector is not the one announced",
        found=found,
        expected=expected,
        do="announce every site, at its largest, when the writer is made",
    )
