"""A full disk, a killed process and a second writer leave whole files, and no litter."""

import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import steer
from steer.algebra import VectorWriter
from steer.errors import SteerError
from tests.attacks.writers import FILES, FOLDERS, checkpoint, result, swept
from tests.store.samples import full

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits and signals of POSIX")

KILLED = """
import os, signal, sys
import steer
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
pair = steer.Pair("A question?", "Yes.", "No.")
steer.Pairs.of([pair]).save(sys.argv[1])
"""


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Let no file become larger than some bytes; writing more fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("kind", FILES)
def test_a_full_disk_leaves_the_old_file(kind: str, tmp_path: Path) -> None:
    name, write = FILES[kind]
    path = tmp_path / name
    path.write_bytes(b"old")
    with disk_of(100), pytest.raises(SteerError, match="cannot be accessed") as caught:
        write(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_full_disk_leaves_no_half_of_a_folder(kind: str, tmp_path: Path) -> None:
    checkpoint()
    with disk_of(100), pytest.raises(SteerError, match="cannot be accessed"):
        FOLDERS[kind](tmp_path / "out")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_full_disk_leaves_the_results_of_before(tmp_path: Path) -> None:
    result().save(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with disk_of(100), pytest.raises(SteerError, match="cannot be accessed"):
        result().save(tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_full_disk_ends_a_sweep_by_name_and_it_goes_on_later(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    with disk_of(100), pytest.raises(SteerError, match="cannot be accessed"):
        swept(path)
    assert swept(path).rows == swept(None).rows


def test_what_a_killed_writer_leaves_is_cleared_by_the_next_save(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2
    folder = tmp_path / ".steer-0123456789abcdef.tmp"  # as a killed merge leaves one
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_bytes(b"x")
    full().save(tmp_path / "v.safetensors")
    assert sorted(os.listdir(tmp_path)) == ["pairs.jsonl", "v.safetensors"]


def test_a_file_that_is_being_written_is_not_cleared(tmp_path: Path) -> None:
    vector = full().weight
    with VectorWriter(tmp_path / "slow.safetensors", vector) as writer:
        full().save(tmp_path / "fast.safetensors")
        for site, term in vector.terms.items():
            writer.add(site, term)
        writer.finish(vector.provenance)
    assert sorted(os.listdir(tmp_path)) == ["fast.safetensors", "slow.safetensors"]
    assert steer.Vector.load(tmp_path / "slow.safetensors").sites == vector.sites


def test_only_our_temporaries_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_bytes(b"x")
    (tmp_path / ".steer-0123456789abcdef.tmp").symlink_to(tmp_path / "elsewhere")
    for name in (".steer-mine.tmp", "steer-0123456789abcdef.tmp", ".steer-0123456789abcdef.tmp.x"):
        (tmp_path / name).write_bytes(b"x")
    before = sorted(os.listdir(tmp_path))
    full().save(tmp_path / "v.safetensors")
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "v.safetensors"])
    assert (tmp_path / "elsewhere" / "kept").exists()


@pytest.mark.parametrize("kind", FILES)
def test_permissions_of_a_replaced_file_are_kept(kind: str, tmp_path: Path) -> None:
    name, write = FILES[kind]
    (tmp_path / name).write_bytes(b"old")
    (tmp_path / name).chmod(0o600)
    write(tmp_path / name)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", FILES)
def test_a_link_is_followed(kind: str, tmp_path: Path) -> None:
    name, write = FILES[kind]
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / name).symlink_to(tmp_path / name)
    write(tmp_path / "link" / name)
    assert (tmp_path / "link" / name).is_symlink()
    assert (tmp_path / name).stat().st_size > 100
