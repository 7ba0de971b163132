"""A file written term by term is the file saved at once."""

from pathlib import Path

import pytest
import torch

from steer.algebra import Dense, LowRank, Provenance, Vector, VectorWriter, Weight
from steer.errors import VectorFileError
from tests.store.samples import MODEL, bits, numbers, records

MADE = Provenance("alignment_vector", {"rank": 2}, "legal", model=MODEL)
VECTOR = Vector(
    {
        Weight("a"): LowRank(numbers(5, 2), numbers(2, 4)),
        Weight("b"): Dense(numbers(7)),
        Weight("c"): Dense(numbers(2, 3, 2)),
    },
    MADE,
)


def write(path: Path, vector: Vector, most: Vector = VECTOR) -> None:
    with VectorWriter(path, most) as writer:
        for site, term in vector.terms.items():
            writer.add(site, term)
        writer.finish(vector.provenance)


def test_the_bytes_are_those_of_save(tmp_path: Path) -> None:
    write(tmp_path / "written", VECTOR)
    VECTOR.save(tmp_path / "saved")
    assert (tmp_path / "written").read_bytes() == (tmp_path / "saved").read_bytes()


def test_less_may_come_than_was_announced(tmp_path: Path) -> None:
    less = Vector({Weight("b"): VECTOR.terms[Weight("b")]}, MADE)
    write(tmp_path / "written", less)
    loaded = Vector.load(tmp_path / "written")
    assert records(loaded) == records(less)
    assert bits(loaded) == bits(less)


def test_what_is_announced_needs_no_memory(tmp_path: Path) -> None:
    huge = {Weight(n): Dense(torch.empty(2**40, device="meta")) for n in "abc"}
    small = Vector({Weight(n): Dense(numbers(3)) for n in "ab"}, MADE)
    write(tmp_path / "written", small, Vector(huge, MADE))
    assert bits(Vector.load(tmp_path / "written")) == bits(small)


def test_more_than_was_announced_is_refused(tmp_path: Path) -> None:
    less = Vector({Weight("b"): VECTOR.terms[Weight("b")]}, MADE)
    with pytest.raises(VectorFileError, match="not the one announced"):
        write(tmp_path / "written", VECTOR, less)
    with VectorWriter(tmp_path / "written", VECTOR) as writer:
        writer.add(Weight("b"), VECTOR.terms[Weight("b")])
        with pytest.raises(VectorFileError, match="weight:b twice"):
            writer.add(Weight("b"), VECTOR.terms[Weight("b")])
    assert list(tmp_path.iterdir()) == []


def test_without_finish_there_is_no_file_and_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "written"
    path.write_bytes(b"before")
    with VectorWriter(path, VECTOR) as writer:
        writer.add(Weight("b"), VECTOR.terms[Weight("b")])
    with (
        pytest.raises(VectorFileError, match="NaN or infinity"),
        VectorWriter(path, VECTOR) as writer,
    ):
        writer.add(Weight("b"), Dense(torch.tensor([torch.nan])))
    assert [p.name for p in tmp_path.iterdir()] == ["written"]
    assert path.read_bytes() == b"before"


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(VectorFileError, match="cannot be accessed"):
        write(tmp_path / "none" / "written", VECTOR)
