"""Merging from checkpoint to checkpoint, shard by shard, in the memory of a few blocks."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from steer._progress import progress_bar
from steer.algebra import Vector
from steer.errors import CheckpointError, MergeError
from steer.merge._parts import Mergeable, TensorDeltas, deltas_of, opened, paired
from steer.merge._pristine import check_space
from steer.merge._rounding import rounded_blocks
from steer.network import Checkpoint
from steer.store import AtomicFolder, accessing, path_of, readable, write_text
from steer.store._container import tensor_bytes

_RECORD = "steer.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx")
_FOREIGN_INDEX = (".bin.index.json", ".h5.index.json", ".msgpack.index.json")
_FOLDERS = ("additional_chat_templates",)
_COPIED = 2**20  # bytes at a time
_LENGTH = 8  # bytes of the length that a safetensors file begins with


def merge_checkpoint(
    model: str | Path,
    parts: Sequence[tuple[Vector | str | Path, float]],
    out: str | Path,
    *,
    strict: bool = True,
    progress: bool = True,
) -> Path:
    """Write a checkpoint with weight vectors merged into it: W + Σ λ Δ.

    The sum is computed in float64 and cast once to the dtype of the tensor. File names, tensor
    names, order, dtypes and metadata stay those of the model. Tensors that do not change are copied
    byte for byte, as are configuration, tokenizer and index. The folder appears under its name when
    it is complete. Weights are read from mapped files and written block by block, so memory stays
    at a few MB whatever the size of the model.

    Args:
        model: Folder or Hub id of the base, with safetensors files.
        parts: Pairs of a vector, a vector file, or the folder or Hub id of an aligned model, and a
            dimensionless coefficient. For an aligned model, Δ is its difference from the base.
        out: The folder to write; it must be new or empty.
        strict: Refuse a vector or aligned model with another configuration, tokenizer or chat
            template; if False, warn instead.
        progress: Show a progress bar if the output is a terminal.

    Returns:
        The folder.

    Raises:
        CheckpointError: A checkpoint cannot be read, or contains links that lead out of it.
        VectorFileError: A vector file cannot be read.
        FitError: A vector does not fit the model.
        MergeError: The folder is not empty or cannot be written, the disk is full, a part does not
            belong to the model, a coefficient is not a finite number, or a merged weight exceeds
            the range of its dtype.
    """
    parts = paired(parts)
    target = Path(os.path.realpath(path_of(out, MergeError)))
    with accessing(target, MergeError):
        _check_target(target)
        base = Checkpoint.open(model)
        files = _copied(base.folder)
        found = [(opened(part), coefficient) for part, coefficient in parts]
        deltas = deltas_of(base, found, strict=strict)
        written = [*files.values(), *(base.folder / name for name in base.files)]
        needed = sum(path.stat().st_size for path in written if path.is_file())
        check_space(target.parent, needed, "the merged model does not fit")
        with AtomicFolder(target, MergeError) as folder:
            for name, path in files.items():
                (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
                with open(folder.path / name, "xb") as copy, readable(path, CheckpointError) as old:
                    shutil.copyfileobj(old, copy)
            _write_shards(base, deltas, folder.path, progress=progress)
            write_text(folder.path / _RECORD, _record(str(model), parts, found), MergeError)
            folder.commit()
    return target


def _copied(folder: Path) -> dict[Path, Path]:
    """Return the files to copy by their names within the folder; links out of it are refused."""
    with accessing(folder, CheckpointError):
        roots, found = _roots(folder), {}
        for path in _beside(folder):
            real = Path(os.path.realpath(path))
            if path.is_symlink() and not any(real.is_relative_to(root) for root in roots):
                raise CheckpointError(
                    f"{path}: this is not copied into a merged model",
                    found=f"a link to {real}",
                    expected="an ordinary file, or a link to one in the model's folder or the "
                    "model cache",
                    do="put the file itself there, or remove it",
                )
            found[path.relative_to(folder)] = path
    return found


def _beside(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".") or path.name == _RECORD
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


def _write_shards(base: Checkpoint, deltas: TensorDeltas, folder: Path, *, progress: bool) -> None:
    total = len(base.names)
    with progress_bar(progress=progress, total=total, desc="merging", unit="tensor") as bar:
        for name in base.files:
            with open(base.folder / name, "rb") as source, open(folder / name, "xb") as target:
                _write_shard(base, deltas, source, target, bar)
                target.flush()
                os.fsync(target.fileno())


def _write_shard(
    base: Checkpoint, deltas: TensorDeltas, source: BinaryIO, target: BinaryIO, bar: Any
) -> None:
    """Copy one file with its header, writing merged tensors in place of those that change."""
    first = source.read(_LENGTH)
    header = source.read(int.from_bytes(first, "little"))
    table: dict[str, Any] = json.loads(header)
    table.pop("__metadata__", None)
    target.write(first + header)
    begin = source.tell()
    for name, entry in sorted(table.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        if added := deltas.get(name):
            for block in rounded_blocks(base.tensor(name), added, name=name):
                target.write(tensor_bytes(block))
        else:
            source.seek(begin + start)
            for left in range(stop - start, 0, -_COPIED):
                target.write(source.read(min(left, _COPIED)))
        bar.update()


def _record(
    model: str, parts: Sequence[tuple[object, float]], found: Sequence[tuple[Mergeable, float]]
) -> str:
    """Return the model and the parts that were merged, as JSON."""
    from steer import __version__

    def named(given: str | Path) -> str:
        return Path(given).resolve().name if Path(given).exists() else str(given)

    rows = []
    for (given, coefficient), (part, _) in zip(parts, found, strict=True):
        row: dict[str, object] = {"coefficient": coefficient}
        if isinstance(given, str | Path):
            row["from"] = named(given)
        if isinstance(part, Vector):
            row |= {"method": part.provenance.method, "domain": part.provenance.domain}
        rows.append(row)
    value = {"base": named(model), "merged": rows, "version": __version__}
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _check_target(target: Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise MergeError(
            f"{target}: the target is in use",
            found="a folder that is not empty" if target.is_dir() else "a file",
            expected="a new or empty folder",
            do="choose another folder, or remove this one",
        )
