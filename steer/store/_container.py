"""The safetensors container: 8 bytes of header length, a JSON header, then the tensors' bytes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import Tensor

from steer.errors import VectorFileError
from steer.store import _strict_json as strict_json
from steer.store._refusals import damaged, not_ours, not_safetensors, wrong

if TYPE_CHECKING:
    from steer.store._schema import TensorEntry

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
)
DTYPE_NAMES = MappingProxyType({dtype: name for name, dtype in DTYPES.items()})
_LENGTH = 8
_MAX_HEADER = 2**25  # bytes: several times what the sites of the largest models need


@dataclass(frozen=True, slots=True)
class Container:
    """The header of a container: free texts, tensors by name, and where their bytes start."""

    metadata: Mapping[str, str]
    entries: "Mapping[str, TensorEntry]"
    start: int


def read_container(file: BinaryIO, size: int, *, key: str) -> Container:
    """Return the verified header; its tensors must fill the rest of the file without a gap."""
    from steer.store._schema import TensorEntry, by_name, validated

    first = file.read(_LENGTH)
    length = int.from_bytes(first, "little")
    if len(first) < _LENGTH or not 2 <= length <= min(size - _LENGTH, _MAX_HEADER):
        raise not_safetensors(first + file.read(64), size, length)
    raw = file.read(length)
    try:
        table = validated(dict[str, Any], "the table", strict_json.loads(raw.decode()))
    except UnicodeDecodeError as error:
        raise damaged("a header that is not UTF-8", "JSON text") from error
    texts = validated(dict[str, Any], "__metadata__", table.pop("__metadata__", {}))
    if key not in texts:
        raise not_ours(key, list(texts), list(table))
    entries = by_name(TensorEntry, "tensors", table)
    start = _LENGTH + length
    _check_filled(entries, size - start)
    return Container(by_name(str, "__metadata__", texts), entries, start)


def _check_filled(entries: "Mapping[str, TensorEntry]", size: int) -> None:
    """Raise unless tensors of our dtypes fill so many bytes, one after the other."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        where, offsets = f"the tensor {name!r}", entry.data_offsets
        if entry.dtype not in DTYPES:
            raise wrong(f"the dtype of {where}", entry.dtype, " | ".join(DTYPES))
        needed = math.prod(entry.shape) * DTYPES[entry.dtype].itemsize
        if len(offsets) != 2 or offsets[1] - offsets[0] != needed:
            raise wrong(f"the extent of {where}", f"data_offsets {offsets}", f"{needed} bytes")
        if offsets[0] != end:
            raise damaged(f"{where} at byte {offsets[0]}", f"at byte {end}, without gap or overlap")
        end = offsets[1]
    if end != size:
        what = "truncated" if size < end else "longer than its header says"
        raise damaged(f"a file with {size} bytes of tensors, {what}", f"{end} bytes")


def read_tensor(file: BinaryIO, container: Container, name: str) -> Tensor:
    """Return a tensor with memory of its own."""
    entry = container.entries[name]
    start, stop = entry.data_offsets
    try:
        memory = torch.empty(stop - start, dtype=torch.uint8)
    except RuntimeError as error:
        raise VectorFileError(
            "a tensor of the file does not fit into memory",
            found=f"{stop - start} bytes",
            expected="memory for every tensor",
            do="load it on a larger machine, or get the file again if it should not be so large",
        ) from error
    file.seek(container.start + start)
    view = memory.numpy().data
    if file.readinto(view) != len(view):  # type: ignore[attr-defined]  # a BufferedReader
        raise damaged("a file that was cut while it was read", f"{len(view)} bytes of {name!r}")
    return memory.view(DTYPES[entry.dtype]).reshape(entry.shape)


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the elements of a tensor in row-major order, as bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def header_bytes(
    metadata: Mapping[str, str], tensors: Mapping[str, Tensor], *, size: int = 0
) -> bytes:
    """Return the start of a file: the length and the header, padded to a multiple of 8."""
    table: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        offsets, dtype = [start, end], DTYPE_NAMES[tensor.dtype]
        table[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
    raw = strict_json.dumps(table).encode()
    raw += b" " * max(-len(raw) % 8, size - _LENGTH - len(raw))
    if len(raw) > _MAX_HEADER:
        raise VectorFileError(
            "the description of the vector is too long",
            found=f"{len(raw)} bytes",
            expected=f"at most {_MAX_HEADER}",
            do="look at vector.provenance.arguments, and at the number of sites",
        )
    return len(raw).to_bytes(_LENGTH, "little") + raw
