"""Vector files: one self-describing `.safetensors` file holds all that is needed to apply a vector.

The format is described in `vectors/README.md`. Reading trusts nothing: sizes, names, dtypes,
numbers and checksums are verified before a vector is built, and nothing is unpickled.
"""

from steer.store.file import inspect_header, load, save
from steer.store.recording import Recording, load_recording, save_recording
from steer.store.stream import VectorWriter

__all__ = [
    "Recording",
    "VectorWriter",
    "inspect_header",
    "load",
    "load_recording",
    "save",
    "save_recording",
]
