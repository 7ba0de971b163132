"""What every exchange format owes, by its name: see `LAWS`."""

import contextlib
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from steer.algebra import Vector, compose, tensors
from steer.algebra._term import dense
from steer.errors import ArgumentError, CapabilityError, SteerError
from steer.exchange import Format, get_format, read, write
from tests.exchange.samples import carried, options, refused


def it_has_a_way_and_says_what_it_is_for(name: str, tmp_path: Path) -> None:
    format = get_format(name)
    assert format.name == name
    assert format.what
    assert format.write or format.read
    assert set(format.keeps) <= {"domain", "coefficient"}


def what_it_carries_comes_back(name: str, tmp_path: Path) -> None:
    format, vector = both_ways(name), carried(get_format(name))
    found = there_and_back(format, vector, tmp_path)
    assert found.sites == vector.sites
    for site, term in vector.terms.items():
        wanted = dense(term).to(format.dtype).double()
        assert type(found.terms[site]) is type(term)
        torch.testing.assert_close(dense(found.terms[site]).double(), wanted, rtol=0, atol=1e-12)
    assert found.provenance.method != "unknown"
    if "domain" in format.keeps:
        assert found.provenance.domain == vector.provenance.domain
    if "coefficient" in format.keeps:
        assert found.tuning is not None
        assert vector.tuning is not None
        assert found.tuning.coefficient == vector.tuning.coefficient


def a_vector_that_came_back_is_saved_and_is_given_a_domain(name: str, tmp_path: Path) -> None:
    format, vector = both_ways(name), carried(get_format(name))
    path = written(format, vector, tmp_path)
    found = read(path, name, domain="legal", **options(format, "read", vector, tmp_path))
    assert found.provenance.domain == "legal"
    found.save(tmp_path / "again.safetensors")
    assert Vector.load(tmp_path / "again.safetensors").provenance == found.provenance


def several_domains_are_their_sum(name: str, tmp_path: Path) -> None:
    format, vector = both_ways(name), carried(get_format(name))
    setting = compose(a=vector, b=carried(format, seed=1))(a=0.5, b=-2.0)
    found = there_and_back(format, setting, tmp_path, vector)
    for site in vector.terms:
        wanted = sum(
            c * dense(part.vector.terms[site]).double()
            for c, part in zip((0.5, -2.0), setting.parts.values(), strict=True)
        )
        close = {"rtol": 0, "atol": 8 * torch.finfo(format.dtype).eps}  # values of order 1
        torch.testing.assert_close(dense(found.terms[site]).double(), wanted, **close)


def what_it_does_not_carry_is_refused(name: str, tmp_path: Path) -> None:
    format = writable(name)
    given = options(format, "write", carried(format), tmp_path)
    for words, what in refused(format).items():
        path = tmp_path / f"refused{suffix(format)}"
        with contextlib.suppress(CapabilityError):
            write(what, path, name, **given)
            pytest.fail(f"{name} wrote {words}")
        assert not path.exists(), words


def options_are_checked(name: str, tmp_path: Path) -> None:
    format = get_format(name)
    path = tmp_path / f"vector{suffix(format)}"
    if format.write:
        given = options(format, "write", carried(format), tmp_path)
        with pytest.raises(ArgumentError, match="not one of the options"):
            write(carried(format), path, name, **given, no_such_option=1)
    if format.read:
        with pytest.raises(ArgumentError, match="not one of the options"):
            read(path, name, no_such_option=1)
    assert not path.exists()


def a_file_is_written_whole_or_not_at_all(name: str, tmp_path: Path) -> None:
    format, vector = writable(name), carried(get_format(name))
    path = written(format, vector, tmp_path)
    before = contents(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", no_space)
        with pytest.raises(SteerError):
            write(-1 * vector, path, name, **options(format, "write", vector, tmp_path))
    assert contents(tmp_path) == before


def a_damaged_file_is_refused_or_read_as_finite_numbers(name: str, tmp_path: Path) -> None:
    format, vector = both_ways(name), carried(get_format(name))
    path = written(format, vector, tmp_path)
    for file in files_of(path):
        whole = file.read_bytes()
        for data in damages(whole):
            file.write_bytes(data)
            harmless(format, path, vector, tmp_path)
        file.write_bytes(whole)
    assert read(path, name, **options(format, "read", vector, tmp_path)).sites == vector.sites


def a_cut_file_is_refused(name: str, tmp_path: Path) -> None:
    format, vector = both_ways(name), carried(get_format(name))
    path = written(format, vector, tmp_path)
    given = options(format, "read", vector, tmp_path)
    for file in files_of(path):
        whole = file.read_bytes()
        for size in sorted({0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 2}):
            file.write_bytes(whole[:size])
            with contextlib.suppress(SteerError):
                read(path, name, **given)
                pytest.fail(f"{name}: {size} of {len(whole)} bytes of {file.name} were read")
        file.write_bytes(whole)


def a_pickle_is_never_run(name: str, tmp_path: Path) -> None:
    format = readable(name)
    vector = carried(format)
    path = tmp_path / f"vector{suffix(format)}"
    bombs = {"plain": tmp_path / "bomb", "zip": tmp_path / "bomb.zip"}
    bombs["plain"].write_bytes(pickle.dumps(_Bomb()))
    torch.save({"model.layers.0": _Bomb()}, bombs["zip"])
    names = [path]
    if format.write and not format.suffixes:
        names = files_of(written(format, vector, tmp_path))
        path = names[0].parent
    for bomb in bombs.values():
        for file in names:
            file.write_bytes(bomb.read_bytes())
            with pytest.raises(SteerError):
                read(path, name, **options(format, "read", vector, tmp_path))
    assert not _Bomb.ran


def what_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    format = readable(name)
    given = options(format, "read", carried(format), tmp_path)
    for path in (tmp_path / f"missing{suffix(format)}", tmp_path / f"folder{suffix(format)}"):
        if path.name.startswith("folder"):
            path.mkdir()
        with pytest.raises(SteerError):
            read(path, name, **given)


LAWS = (
    it_has_a_way_and_says_what_it_is_for,
    what_it_carries_comes_back,
    a_vector_that_came_back_is_saved_and_is_given_a_domain,
    several_domains_are_their_sum,
    what_it_does_not_carry_is_refused,
    options_are_checked,
    a_file_is_written_whole_or_not_at_all,
    a_damaged_file_is_refused_or_read_as_finite_numbers,
    a_cut_file_is_refused,
    a_pickle_is_never_run,
    what_is_not_there_is_refused,
)


class _Bomb:
    """An object that tells when it is unpickled."""

    ran: list[bool] = []  # noqa: RUF012  # shared on purpose

    def __reduce__(self) -> tuple[Any, ...]:
        return (_explode, ())


def _explode() -> None:
    _Bomb.ran.append(True)


def both_ways(name: str) -> Format:
    """Return a format that is written and read, or skip."""
    return writable(readable(name).name)


def writable(name: str) -> Format:
    """Return a format that is written, or skip."""
    if (format := get_format(name)).write is None:
        pytest.skip("it is only read")
    return format


def readable(name: str) -> Format:
    """Return a format that is read, or skip."""
    if (format := get_format(name)).read is None:
        pytest.skip("it is only written")
    return format


def suffix(format: Format) -> str:
    """Return an ending of the format's files; none for folders."""
    return format.suffixes[0] if format.suffixes else ""


def written(format: Format, what: Any, tmp_path: Path, like: Vector | None = None) -> Path:
    """Write something, and return the path."""
    path = tmp_path / f"vector{suffix(format)}"
    vector = like or what
    write(what, path, format.name, **options(format, "write", vector, tmp_path))
    return path


def there_and_back(format: Format, what: Any, tmp_path: Path, like: Vector | None = None) -> Vector:
    """Write something and return what is read."""
    path = written(format, what, tmp_path, like)
    return read(path, format.name, **options(format, "read", like or what, tmp_path))


def files_of(path: Path) -> list[Path]:
    """Return the file, or the files of the folder."""
    return sorted(path.iterdir()) if path.is_dir() else [path]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder."""
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def no_space(*args: object, **options: object) -> None:
    """Fail as a full disk does."""
    raise OSError(28, "No space left on device")


def damages(whole: bytes) -> Iterator[bytes]:
    """Yield variants of a file: single bytes changed, stretches repeated, and noise."""
    chance = random.Random(0)
    for _ in range(60):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        yield bytes(data)
    for _ in range(20):
        start = chance.randrange(len(whole))
        yield whole[:start] + chance.randbytes(8) + whole[start + 8 :]
    yield whole + whole
    yield chance.randbytes(len(whole))


def harmless(format: Format, path: Path, like: Vector, tmp_path: Path) -> None:
    """Check that a file is refused, or read as a vector of finite numbers."""
    try:
        found = read(path, format.name, **options(format, "read", like, tmp_path))
    except SteerError:
        return
    numbers = [t for term in found.terms.values() for t in tensors(term).values()]
    assert all(bool(t.isfinite().all()) for t in numbers)
