"""However a file is mutated, it is refused or gives the vector that was saved: nothing between."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from steer.algebra import Vector
from steer.algebra._file.file import load
from steer.errors import VectorFileError
from tests.store.samples import DIGEST, KEY, SAMPLES, bits, forged, join, records, split

ROUNDS = 1200
INTERESTING = (0, 1, 0x22, 0x2C, 0x30, 0x39, 0x5B, 0x5C, 0x5D, 0x65, 0x7B, 0x7D, 0x7F, 0x80, 0xFF)
VALUES: tuple[object, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        7,
        2**31,
        2**63,
        -(2**63),
        1e308,
        -0.5,
        0.5,
        "",
        "F32",
        "BF16",
    ),
    *([], {}, [0], [[]], {"a": 1}, "all", "embed", "resid_post.0", "direction", "dense", "\ud800"),
)

Mutation = Callable[[random.Random, bytes], bytes]


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 40))):
        result[rng.randrange(len(result))] ^= 1 << rng.randrange(8)
    return bytes(result)


def set_bytes(rng: random.Random, data: bytes) -> bytes:
    result = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        result[rng.randrange(len(result))] = rng.choice(INTERESTING)
    return bytes(result)


def insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 8, 100))) + data[at:]


def delete(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.choice((1, 2, 8, 100)) :]


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def exchange(rng: random.Random, data: bytes) -> bytes:
    """Two stretches of the file trade places."""
    size = rng.choice((1, 4, 8, 16))
    one, two = sorted(rng.sample(range(0, len(data) - size, size), 2))
    result = bytearray(data)
    result[one : one + size], result[two : two + size] = (
        data[two : two + size],
        data[one : one + size],
    )
    return bytes(result)


def change_length(rng: random.Random, data: bytes) -> bytes:
    length = int.from_bytes(data[:8], "little") + rng.choice((-9, -8, -1, 1, 8, 9, 2**20, 2**60))
    return (length % 2**64).to_bytes(8, "little") + data[8:]


def change_text(rng: random.Random, data: bytes) -> bytes:
    """A character of the header changes, and the length of the header is made to fit."""
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length].decode()
    at = rng.randrange(len(text))
    new = rng.choice(("", "0", "9", '"', "{", "}", "[", "]", ",", ":", "\\", "NaN", "é", " "))
    raw = (text[:at] + new + text[at + 1 :]).encode()
    return len(raw).to_bytes(8, "little") + raw + data[8 + length :]


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside a JSON value."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    return [p for key, item in items for p in ((*path, key), *places(item, (*path, key)))]


def mutate_json(rng: random.Random, value: Any) -> None:
    """One value inside is replaced, removed, renamed, copied from elsewhere, or moved."""
    paths = places(value)
    *parents, last = rng.choice(paths)
    holder = value
    for key in parents:
        holder = holder[key]
    action = rng.randrange(5)
    if action == 0:
        del holder[last]
    elif action == 1:
        other = value
        for key in rng.choice(paths):
            other = other[key]
        holder[last] = json.loads(json.dumps(other))
    elif action == 2 and isinstance(holder, dict):
        holder[rng.choice(("x", "dtype", "layer", "resid_post.9.v"))] = holder.pop(last)
    elif action == 3 and isinstance(holder[last], int | float):
        holder[last] += rng.choice((-1, 1, 4, 8, 0.5))
    else:
        holder[last] = rng.choice(VALUES)


def change_table(rng: random.Random, data: bytes) -> bytes:
    """The table of tensors changes; the description and its checksum stay."""
    header, body = split(data)
    table = {name: entry for name, entry in header.items() if name != "__metadata__"}
    mutate_json(rng, table)
    return join({"__metadata__": header["__metadata__"], **table}, body)


def change_description(rng: random.Random, data: bytes) -> bytes:
    """The description changes, and its checksum stays."""
    header, body = split(data)
    document = json.loads(header["__metadata__"][KEY])
    mutate_json(rng, document)
    header["__metadata__"][KEY] = json.dumps(document)
    return join(header, body)


MUTATIONS: tuple[Mutation, ...] = (
    *(flip_bits, set_bytes, insert, delete, truncate, exchange),
    *(change_length, change_text, change_table, change_description),
)


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_mutated_file_is_refused_or_gives_the_same_vector(mutation, sample, tmp_path):
    vector = SAMPLES[sample]()
    vector.save(tmp_path / "good")
    good = (tmp_path / "good").read_bytes()
    rng = random.Random(f"{mutation.__name__} {sample}")
    expected = (records(vector), bits(vector))
    refused = 0
    for _ in range(ROUNDS // len(SAMPLES)):
        mutated = mutation(rng, good)
        (tmp_path / "mutated").write_bytes(mutated)
        try:
            found = load(tmp_path / "mutated")
        except VectorFileError:
            refused += 1
            continue
        assert (records(found), bits(found)) == expected
    assert refused > ROUNDS // len(SAMPLES) // 2


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_forged_file_is_refused_or_is_a_vector_that_can_be_saved(sample, tmp_path):
    """With checksums that fit, another vector may stand there, but never half a vector."""
    vector = SAMPLES[sample]()
    vector.save(tmp_path / "good")
    good = (tmp_path / "good").read_bytes()
    rng = random.Random(sample)
    refused = 0
    for _ in range(ROUNDS // len(SAMPLES)):
        mutated = forged(good, lambda document: mutate_json(rng, document))
        (tmp_path / "mutated").write_bytes(mutated)
        try:
            found = load(tmp_path / "mutated")
        except VectorFileError:
            refused += 1
            continue
        assert bits(found) == bits(vector)
        found.save(tmp_path / "again")
        again = Vector.load(tmp_path / "again")
        assert records(again) == records(found)
        assert repr(again) == repr(found)
    assert refused > ROUNDS // len(SAMPLES) // 4


def test_a_mutated_checksum_is_refused(tmp_path):
    SAMPLES["full"]().save(tmp_path / "good")
    header, body = split((tmp_path / "good").read_bytes())
    digest = header["__metadata__"][DIGEST]
    for other in ("", digest[:-1], digest.upper(), digest + " ", digest[::-1]):
        header["__metadata__"][DIGEST] = other
        (tmp_path / "mutated").write_bytes(join(header, body))
        with pytest.raises(VectorFileError, match="SHA-256"):
            load(tmp_path / "mutated")
