"""Vectors to write, and a way to forge files that the library itself would never write."""

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import torch

from steer.algebra import (
    Dense,
    Direction,
    DomainGate,
    LayerStats,
    LowRank,
    ModelInfo,
    Provenance,
    Residual,
    Scope,
    Tuning,
    Vector,
    Weight,
    tensors,
)
from steer.algebra._site import EMBED

KEY, DIGEST = "steer.vector", "steer.vector.sha256"
MODEL = ModelInfo("org/model-é", "0a1b", 8, 4, "c" * 64, "t" * 64, "p" * 64)


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Binary fractions that every dtype holds exactly."""
    count = int(torch.tensor(shape).prod()) if shape else 1
    return ((torch.arange(count) % 7 - 2.5) / 4).to(dtype).reshape(shape)


def full() -> Vector:
    """Every record filled, every kind of term, every dtype."""
    return Vector(
        {
            EMBED: Direction(numbers(4, dtype=torch.float16)),
            Residual(2): Direction(numbers(4) + 1),
            Residual(5): Direction(numbers(4, dtype=torch.float64) - 1),
            Weight("lm_head.weight"): LowRank(numbers(6, 2), numbers(2, 4)),
            Weight("norm.weight"): Dense(numbers(4, dtype=torch.bfloat16)),
            Weight("scale"): Dense(numbers()),
        },
        Provenance(
            method="palrs",
            arguments={"layers": [2, 5], "rescale": True, "note": "naïve", "at": None},
            domain="medical",
            pairs=100,
            pairs_fingerprint="f" * 64,
            model=MODEL,
            license="CC0-1.0",
            version="0.1.0",
        ),
        {2: LayerStats(8.0, 0.25, 0.96875), 5: LayerStats(residual_norm=16.0)},
        Tuning(2, -0.75, "add", Scope("response", 0, 9), 0.875, 0.125),
        DomainGate(("medical", "legal"), numbers(3, 4), 2, 0.5, 1.0),
    )


def residual() -> Vector:
    """The least that a file can hold."""
    return Vector.of({0: numbers(3)})


def weights() -> Vector:
    """Weight sites alone."""
    return Vector(
        {Weight("b"): Dense(numbers(2, 3)), Weight("a"): LowRank(numbers(3, 1), numbers(1, 2))}
    )


SAMPLES: dict[str, Callable[[], Vector]] = {
    "full": full,
    "residual": residual,
    "weights": weights,
}


def records(vector: Vector) -> object:
    """All of a vector but the numbers in its tensors, comparable with ==."""
    gate = vector.gate
    return (
        vector.sites,
        {site: (type(term), term.shape) for site, term in vector.terms.items()},
        vector.provenance,
        dict(vector.stats),
        vector.tuning,
        gate and (gate.domains, gate.layer, gate.margin, gate.accuracy),
    )


def bits(vector: Vector) -> list[tuple[torch.dtype, bytes]]:
    """The dtype and the bytes of every tensor, in the order of the sites."""
    found = [t for term in vector.terms.values() for t in tensors(term).values()]
    found += [vector.gate.centroids] if vector.gate else []
    return [(t.dtype, bytes(t.contiguous().reshape(-1).view(torch.uint8).tolist())) for t in found]


def split(data: bytes) -> tuple[dict, bytes]:
    """A file's header and body."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(header: object, body: bytes) -> bytes:
    """A file with this header, whatever it says; a text is taken as it is."""
    raw = header if isinstance(header, str) else json.dumps(header)
    encoded = raw.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(encoded)) + encoded + body


def forged(data: bytes, change: Callable[[dict], object]) -> bytes:
    """A file whose description was changed and given a checksum that fits.

    Args:
        data: A good file.
        change: Changes the description in place; a text that it returns stands in its stead.
    """
    header, body = split(data)
    document = json.loads(header["__metadata__"][KEY])
    result = change(document)
    text = result if isinstance(result, str) else json.dumps(document)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    header["__metadata__"] = {KEY: text, DIGEST: digest}
    return join(header, body)


def write(path: Path, data: bytes) -> Path:
    """The path, after the bytes were written there."""
    path.write_bytes(data)
    return path
