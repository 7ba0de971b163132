"""Files: checked paths, atomic writing, and strict containers of tensors."""

from steer.store._atomic import AtomicFile, AtomicFolder, write_bytes, write_text
from steer.store._paths import (
    PathLike,
    accessing,
    file_size,
    folder_made,
    folder_of,
    path_of,
    read_file,
    readable,
    target_of,
)

__all__ = [
    "AtomicFile",
    "AtomicFolder",
    "PathLike",
    "accessing",
    "file_size",
    "folder_made",
    "folder_of",
    "path_of",
    "read_file",
    "readable",
    "target_of",
    "write_bytes",
    "write_text",
]
