"""The files of a model's folder other than its weights, which merging copies."""

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from steer.errors import CheckpointError
from steer.store import accessing, readable

RECORD = "steer.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx")
_FOREIGN_INDEX = (".bin.index.json", ".h5.index.json", ".msgpack.index.json")
_FOLDERS = ("additional_chat_templates",)


def files_beside(folder: Path) -> dict[Path, Path]:
    """Return the paths of the files to copy by their names within the folder."""
    with accessing(folder, CheckpointError):
        roots = _roots(folder)
        return {path.relative_to(folder): _ordinary(path, roots) for path in _beside(folder)}


def copy_files(files: Mapping[Path, Path], folder: Path) -> None:
    """Copy files into a folder."""
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with open(folder / name, "xb") as out, readable(path, CheckpointError) as file:
            shutil.copyfileobj(file, out)


def _beside(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".") or path.name == RECORD
        if hidden or path.name.endswith(_WEIGHTS) or path.name.endswith(_FOREIGN_INDEX):
            continue
        if path.name in _FOLDERS and path.is_dir() and not path.is_symlink():
            yield from (p for p in sorted(path.rglob("*")) if p.is_symlink() or not p.is_dir())
        elif path.name in _FOLDERS or not path.is_dir():
            yield path


def _roots(folder: Path) -> tuple[Path, ...]:
    """Return the folders that links may lead into: the model's own, and the Hub cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    own = Path(os.path.realpath(folder))
    cache = Path(os.path.realpath(HF_HUB_CACHE))
    snapshot = own.parent.name == "snapshots"  # …/snapshots/<commit> links to …/blobs
    return (own, cache, own.parent.parent / "blobs") if snapshot else (own, cache)


def _ordinary(path: Path, roots: tuple[Path, ...]) -> Path:
    """Return the real path of an ordinary file; links out of the folders are refused."""
    try:
        real = Path(os.path.realpath(path, strict=True))
    except OSError as error:
        raise _refused(path, "a link that leads nowhere") from error
    if path.is_symlink() and not any(real.is_relative_to(root) for root in roots):
        raise _refused(path, f"a link to {real}")
    mode = real.stat().st_mode
    if not stat.S_ISREG(mode):
        raise _refused(path, "a directory" if stat.S_ISDIR(mode) else "a device or pipe")
    return real


def _refused(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: this is not copied into a merged model",
        found=found,
        expected="an ordinary file, or a link to one in the model's folder or the model cache",
        do="put the file itself there, or remove it",
    )
