"""GGUF control vectors, which llama.cpp, repeng, EasySteer and saklas read.

The tensor `direction.N` is one float32 direction. llama.cpp and repeng both add it to the output of
block N, counted from 0, and llama.cpp refuses a file with N = 0. The tools differ in where they
measured it: repeng at the output of block N as well, llama.cpp's own `cvector-generator` at that of
block N − 1. A file of our own says what it means in the keys `steer.operation`, `steer.hook_point`
and `steer.scope`; of others the type of `controlvector.layer_count` tells the generator, which
writes it signed.
"""

import contextlib
import math
import re
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from steer._check import need
from steer.algebra import Vector, parse_scope
from steer.errors import ArgumentError, VectorFileError
from steer.exchange._exchange import imported
from steer.exchange._registry import Format, register_format
from steer.store import read_file, write_bytes

_ARCHITECTURE = "controlvector"
_NAME = re.compile(r"direction\.(0|[1-9][0-9]{0,5})")
_LONGEST = 2**28  # bytes of a file: 126 layers of width 16384 take 2^23
_MOST = 2**12  # keys, tensors, and texts of an array
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_INT32, _TEXT, _ARRAY = 5, 8, 9
_TENSORS = {0: "<f4", 1: "<f2"}
_ADDED = ("add", "addition")
_HOOKS = ("resid_post", "residual_stream_post_layer")


def _write(vector: Vector, path: Path, *, model_hint: str | None = None) -> None:
    """Write a control vector that llama.cpp loads."""
    need("writing GGUF", "gguf", extra="gguf")
    from gguf import GGUFWriter

    made, tuning = vector.provenance, vector.tuning
    hint = model_hint or (made.model.model_id if made.model else "unknown")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "vector.gguf")
        with contextlib.closing(GGUFWriter(file, _ARCHITECTURE)) as out:
            out.add_string(f"{_ARCHITECTURE}.model_hint", hint)
            out.add_uint32(f"{_ARCHITECTURE}.layer_count", len(vector.layers))
            out.add_string("steer.operation", "add")
            out.add_string("steer.hook_point", "resid_post")
            out.add_string("steer.scope", "all")
            out.add_string("steer.method", made.method)
            if made.domain is not None:
                out.add_string("steer.domain", made.domain)
            if tuning is not None:
                out.add_float64("steer.coefficient", tuning.coefficient)
            for layer in vector.layers:
                values = vector.direction(layer).to("cpu", torch.float32).numpy()
                out.add_tensor(f"direction.{layer}", values)
            out.write_header_to_file()
            out.write_kv_data_to_file()
            out.write_tensors_to_file()
        write_bytes(path, file.read_bytes(), VectorFileError)


def _read(path: Path, *, layers: Literal["applied", "measured"] | None = None) -> Vector:
    """Read a control vector; `layers` chooses where the tools that wrote it disagree."""
    file = _File(read_file(path, VectorFileError, most=_LONGEST))
    keys, kinds, tensors = file.content()
    if keys.get("general.architecture") != _ARCHITECTURE:
        raise VectorFileError(
            "this GGUF file is no control vector",
            found=f"general.architecture {keys.get('general.architecture')!r}",
            expected=repr(_ARCHITECTURE),
            do="load a model with steer.Model.from_pretrained",
        )
    _check_added(keys)
    found = {_layer_of(name): tensor for name, tensor in tensors.items()}
    shift = _shift(keys, kinds, found, layers)
    scope = keys.get("steer.scope")
    coefficient = keys.get("steer.coefficient")
    return imported(
        {layer - shift: found[layer] for layer in sorted(found)},
        domain=_text(keys, "steer.domain"),
        coefficient=None if coefficient is None else float(coefficient),  # type: ignore[arg-type]
        scope=None if scope in (None, "all") else parse_scope(str(scope)),
        model=_text(keys, f"{_ARCHITECTURE}.model_hint"),
        method=_text(keys, "steer.method") or _text(keys, f"{_ARCHITECTURE}.method"),
    )


def _check_added(keys: Mapping[str, object]) -> None:
    """Refuse a file that says it is not added to the output of a block."""
    for key, value in keys.items():
        last = key.rpartition(".")[2]
        known = {"operation": _ADDED, "mode": _ADDED, "hook_point": _HOOKS}.get(last)
        if known is not None and value not in known:
            raise VectorFileError(
                "the file holds directions that are not meant to be added to a block's output",
                found=f"{key} {value!r}",
                expected=" | ".join(known),
                do="use it with the tool that wrote it",
            )


def _shift(
    keys: Mapping[str, object],
    kinds: Mapping[str, int],
    found: Mapping[int, Tensor],
    layers: str | None,
) -> int:
    """Return by how much the numbers in the names lie above layers."""
    if layers is not None:
        return int(layers == "measured")
    kind = kinds.get(f"{_ARCHITECTURE}.layer_count", _INT32)
    if "steer.hook_point" in keys or 0 in found or kind != _INT32:
        return 0
    raise ArgumentError(
        "the file does not say at which layers its directions were measured",
        found=f"direction.{min(found, default=1)} … of a writer such as llama.cpp's "
        "cvector-generator, which numbers the output of block N − 1 with N",
        expected="layers='applied', block N, as llama.cpp adds them, or layers='measured', "
        "block N − 1",
        do="pass one of them; 'applied' does what llama.cpp does with the file",
    )


def _layer_of(name: str) -> int:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"a tensor {name!r}, not direction.N")
    return int(match[1])


def _text(keys: Mapping[str, object], key: str) -> str | None:
    value = keys.get(key)
    return value if isinstance(value, str) and value else None


class _File:
    """A GGUF file in memory, read front to back with every count bounded by what is there.

    The reader of the package `gguf` keeps an array for each element of a header, some hundred
    bytes for one byte of a hostile file, so it reads none of unknown origin.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def content(self) -> tuple[dict[str, object], dict[str, int], dict[str, Tensor]]:
        """Return the keys, the types of their values, and the tensors."""
        if self._take(4) != b"GGUF" or (version := self._number("I")) not in (2, 3):
            raise ValueError("no GGUF file of version 2 or 3")
        del version
        n_tensors, n_keys = self._count(), self._count()
        keys: dict[str, object] = {}
        kinds: dict[str, int] = {}
        for _ in range(n_keys):
            name, kind = self._string(), int(self._number("I"))
            if name in keys:
                raise ValueError(f"the key {name!r} twice")
            keys[name], kinds[name] = self._value(kind), kind
        entries = [self._entry() for _ in range(n_tensors)]
        alignment = keys.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 2**16:
            raise ValueError(f"the alignment {alignment!r}")
        start = -(-self._at // alignment) * alignment
        if (size := sum(n * self._item(kind) for _, n, kind, _ in entries)) > len(self._data):
            raise ValueError(f"tensors of {size} bytes in a file of {len(self._data)}")
        tensors = {name: self._tensor(start + at, n, kind) for name, n, kind, at in entries}
        if len(tensors) < n_tensors:
            raise ValueError("a tensor twice")
        return keys, kinds, tensors

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise ValueError(f"{size} bytes at {self._at} of a file of {len(self._data)}")
        self._at += size
        return self._data[self._at - size : self._at]

    def _number(self, code: str) -> float:
        value: float = struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))[0]
        return value

    def _count(self) -> int:
        count = int(self._number("Q"))
        if count > _MOST:
            raise ValueError(f"{count} keys, tensors or texts")
        return count

    def _string(self) -> str:
        return self._take(int(self._number("Q"))).decode()

    def _value(self, kind: int) -> object:
        if kind == _TEXT:
            return self._string()
        if kind != _ARRAY:
            value = self._number(_SCALARS[kind])
            if not math.isfinite(value):
                raise ValueError(f"the number {value}")
            return value
        inner = int(self._number("I"))
        if inner == _TEXT:
            return [self._string() for _ in range(self._count())]
        self._take(int(self._number("Q")) * struct.calcsize(_SCALARS[inner]))
        return None  # numbers that nothing here asks for

    def _entry(self) -> tuple[str, int, int, int]:
        name, dimensions = self._string(), self._number("I")
        if dimensions != 1:
            raise ValueError(f"{name!r} of {dimensions} dimensions")
        size, kind, at = self._number("Q"), self._number("I"), self._number("Q")
        return name, int(size), int(kind), int(at)

    def _item(self, kind: int) -> int:
        if kind not in _TENSORS:
            raise ValueError(f"a tensor of GGML type {kind}, not float32 or float16")
        return np.dtype(_TENSORS[kind]).itemsize

    def _tensor(self, start: int, size: int, kind: int) -> Tensor:
        self._at = min(start, len(self._data))
        bytes_ = self._take(size * self._item(kind))
        return torch.from_numpy(np.frombuffer(bytes_, _TENSORS[kind]).astype(np.float32))


register_format(
    Format(
        name="gguf",
        what="llama.cpp, repeng, EasySteer, saklas: control vectors",
        suffixes=(".gguf",),
        write=_write,
        read=_read,
        lowest=1,
        keeps=("domain", "coefficient"),
    )
)
