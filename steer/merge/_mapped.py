"""A vector file whose tensors stay on disk."""

import hashlib
import mmap
import os

import torch

from steer.algebra import Vector
from steer.algebra._file.document import build_vector, read_document
from steer.algebra._file.file import about, check_storable, damaged, inspect_header, opened
from steer.algebra._file.layout import KEY
from steer.store._container import DTYPES, read_container


def mapped_vector(path: str | os.PathLike[str]) -> Vector:
    """Read a vector file, validated as `Vector.load` does, with tensors that are views of the file.

    Args:
        path: The file.

    Returns:
        The vector; its tensors must not be written to.

    Raises:
        VectorFileError: The file is damaged, foreign, of a newer version, cannot be read, or holds
            values that are not finite.
    """
    document = read_document(inspect_header(path))
    with about(path), opened(path) as (file, size):
        container = read_container(file, size, key=KEY)
        pages = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
    tensors = {}
    with about(path):
        for name, entry in container.entries.items():
            dtype = DTYPES[entry.dtype]
            count = (entry.stop - entry.start) // dtype.itemsize
            flat = torch.frombuffer(pages, dtype=dtype, count=count, offset=entry.start)
            digest = hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()
            if digest != document.tensors[name].sha256:
                raise damaged(
                    f"bytes of {name!r} with SHA-256 {digest}", document.tensors[name].sha256
                )
            tensors[name] = flat.reshape(entry.shape)
            check_storable(name, tensors[name])
        return build_vector(document, tensors)
