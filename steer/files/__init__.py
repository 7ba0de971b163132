"""Paths that are checked, and files that are written whole or not at all."""

from steer.files.atomic import AtomicFile, AtomicFolder, write_bytes, write_text
from steer.files.paths import (
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
