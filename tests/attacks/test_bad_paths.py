"""What no file can be called is refused by name, wherever a path is taken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import steer
from steer.algebra import inspect_header
from steer.algebra._file.folder import save_by_domain
from steer.errors import SteerError
from steer.extract import Activations
from steer.harness import available_tasks, run_harness
from steer.network import Checkpoint
from tests.attacks.writers import FILES, FOLDERS, checkpoint, swept
from tests.measure.setting import model
from tests.store.samples import full

BAD: dict[str, Any] = {
    "NUL": "a\0b.jsonl",
    "overlong": "x" * 300 + ".jsonl",
    "overlong folder": "x" * 300 + "/a.jsonl",
    "endless": "x/" * 5000,
    "half a surrogate pair": "\ud800.jsonl",
    "number": 0,
    "bytes": b"v.jsonl",
}
ENTRIES: dict[str, Callable[[Any], object]] = {
    **{f"write {kind}": write for kind, (_, write) in FILES.items() if kind != "picture"},
    **{f"write {kind}": write for kind, write in FOLDERS.items()},
    "load a vector": steer.Vector.load,
    "inspect a vector": inspect_header,
    "load a recording": Activations.load,
    "save a choice": lambda path: save_by_domain({"medical": full()}, path),
    "sweep": swept,
    "open a checkpoint": Checkpoint.open,
    "merge a model": lambda path: steer.merge_checkpoint(path, [], "out", progress=False),
    "merge a part": lambda path: steer.merge_checkpoint(
        checkpoint(), [(path, 1.0)], "out", progress=False
    ),
    "take a base": lambda path: steer.alignment_vector(path, checkpoint(), progress=False),
    "take an aligned model": lambda path: steer.alignment_vector(
        checkpoint(), path, progress=False
    ),
    "name data sets": available_tasks,
    "run a harness": lambda path: run_harness(
        model(), None, "gsm8k", data=path, progress=False, limit=1
    ),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("entry", ENTRIES)
def test_no_path_gives_a_raw_error(
    entry: str, bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SteerError) as caught:
        ENTRIES[entry](BAD[bad])
    assert len(str(caught.value).encode()) <= 4096
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", ["NUL", "overlong", "overlong folder", "endless"])
def test_a_picture_has_a_name_too(bad: str) -> None:
    with pytest.raises(SteerError):
        FILES["picture"][1](BAD[bad].replace(".jsonl", ".png"))


def test_a_picture_of_no_known_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(steer.errors.FileError, match="no such format"):
        FILES["picture"][1](tmp_path / "p.xyz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".", "/"])
def test_a_folder_is_no_picture(name: str) -> None:
    with pytest.raises(steer.errors.FileError, match="cannot be written"):
        FILES["picture"][1](Path(name))


def test_a_picture_without_an_ending_gets_the_usual_one(tmp_path: Path) -> None:
    FILES["picture"][1](tmp_path / "p")
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]
