"""Devices, pipes, sockets and folders are neither replaced nor read: they are refused."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from steer.algebra import Vector
from steer.errors import SteerError
from steer.extract import Activations
from tests.attacks.writers import FILES, FOLDERS, swept
from tests.cli.run import steer
from tests.tiny import tiny_model

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")


def folder(path: Path) -> None:
    path.mkdir()


def bound(path: Path) -> None:
    """Put a socket there; its name may be short only."""
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def null(path: Path) -> None:
    path.symlink_to("/dev/null")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "socket": bound,
    "device": null,
    "folder": folder,
    "loop of links": loop,
}
WRITERS = {**FILES, "sweep": ("s.jsonl", swept)}


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("kind", WRITERS)
def test_nothing_special_is_replaced(kind: str, special: str, tmp_path: Path) -> None:
    name, write = WRITERS[kind]
    path = tmp_path / name
    SPECIAL[special](path)
    before, device = os.lstat(path), os.stat("/dev/null")
    with pytest.raises(SteerError) as caught:
        write(path)
    assert str(path) in str(caught.value)
    assert os.path.samestat(before, os.lstat(path))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.path.samestat(device, os.stat("/dev/null"))
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("special", ["pipe", "socket", "device", "loop of links"])
@pytest.mark.parametrize("kind", FOLDERS)
def test_nothing_special_is_taken_for_a_folder(kind: str, special: str, tmp_path: Path) -> None:
    SPECIAL[special](tmp_path / "out")
    before = os.lstat(tmp_path / "out")
    with pytest.raises(SteerError):
        FOLDERS[kind](tmp_path / "out")
    assert os.path.samestat(before, os.lstat(tmp_path / "out"))


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("load", [Vector.load, Activations.load])
def test_nothing_special_is_read(
    load: Callable[[Path], object], special: str, tmp_path: Path
) -> None:
    SPECIAL[special](tmp_path / "x")
    with pytest.raises(SteerError, match="x: "):
        load(tmp_path / "x")


@pytest.mark.parametrize("command", ["extract", "report", "align", "merge", "eval", "demo"])
def test_the_command_line_refuses_a_pipe_before_it_loads_anything(
    command: str, tmp_path: Path
) -> None:
    pipe, pairs = tmp_path / "pipe", tmp_path / "p.jsonl"
    os.mkfifo(pipe)
    pairs.write_text('{"prompt": "A?", "chosen": "B.", "rejected": "C."}\n')
    base = tmp_path / "base"
    if command in ("align", "merge"):
        tiny_model("llama", layers=2).save_pretrained(base)
    arguments = {
        "extract": ["extract", "no-such-model", str(pairs)],
        "report": ["report", "no-such-model", "-v", "vectors/toy/medical.safetensors"],
        "align": ["align", str(base), str(base)],
        "merge": ["merge", str(base), "-v", str(base)],
        "eval": ["eval", "no-such-model", "--tasks", "gsm8k"],
        "demo": ["demo", "--toy"],
    }[command]
    if command == "report":
        arguments += ["--pairs", str(pairs)]
    status, _, err = steer(*arguments, "-o", str(pipe))
    assert status == 1
    assert str(pipe) in err
    assert "found:    a device or pipe" in err or "the target is in use" in err
    assert stat.S_ISFIFO(pipe.stat().st_mode)
