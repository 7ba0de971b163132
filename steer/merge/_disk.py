"""From checkpoint to checkpoint, shard by shard, with the memory of a few blocks."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from steer.algebra import Vector
from steer.errors import CheckpointError, MergeError
from steer.merge._beside import RECORD, copy_files, files_beside
from steer.merge._mapped import mapped_vector
from steer.merge._parts import paired
from steer.merge._plan import Part, Plan, planned
from steer.merge._rounding import rounded_blocks
from steer.merge._scratch import Scratch
from steer.network import Checkpoint
from steer.store import AtomicFolder, accessing, path_of, write_text
from steer.store._container import tensor_bytes

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
    """Write a checkpoint in which weight vectors are merged: `round(W + Σ λ Δ)`, see `rounded`.

    Files, names, order, dtypes and metadata are those of the model; tensors to which nothing is
    added are copied byte by byte, and so are configuration, tokenizer and index. The folder
    appears under its name when it is complete. Weights are read through mapped files and written
    block by block, so that memory stays at some MB whatever the model's size.

    Args:
        model: Folder or Hub id of the base, with safetensors files.
        parts: What is added, each with its coefficient, dimensionless: a vector, a vector file, or
            the folder or Hub id of an aligned model, whose difference from the base is then taken
            on the way, without rounding it.
        out: The folder to write; it must not exist, or be empty.
        strict: Whether a vector or aligned model of another configuration, tokenizer or chat
            template is refused; if not, it is warned of.
        progress: Whether to show a bar, if the output is a terminal.

    Returns:
        The folder.

    Raises:
        CheckpointError: A checkpoint cannot be read, or holds links that lead out of it.
        VectorFileError: A vector file cannot be read.
        FitError: A vector does not fit the model.
        MergeError: The folder is in use or cannot be written, the disk is full, parts do not
            belong to the model, a coefficient is no finite number, or a merged weight exceeds its
            dtype.
    """
    parts = paired(parts)
    target = Path(os.path.realpath(path_of(out, MergeError)))
    with accessing(target, MergeError):
        _check_target(target)
        base = Checkpoint.open(model)
        files = files_beside(base.folder)
        opened = [(_opened(part), coefficient) for part, coefficient in parts]
        plan = planned(base, opened, strict=strict)
        _check_space(target.parent, [*files.values(), *(base.folder / name for name in base.files)])
        with AtomicFolder(target, MergeError) as folder:
            copy_files(files, folder.path)
            _write_shards(base, plan, folder.path, progress=progress)
            write_text(folder.path / RECORD, _record(str(model), parts, opened), MergeError)
            folder.commit()
    return target


def _opened(part: Vector | str | Path) -> Part:
    if isinstance(part, Vector):
        return part
    path = path_of(part, CheckpointError)
    return mapped_vector(path) if path.is_file() else Checkpoint.open(part)


def _write_shards(base: Checkpoint, plan: Plan, folder: Path, *, progress: bool) -> None:
    from tqdm.auto import tqdm

    scratch = Scratch()
    hidden = None if progress else True  # None: hidden where the output is no terminal
    with tqdm(total=len(base), desc="merging", unit="tensor", disable=hidden) as bar:
        for name in base.files:
            with open(base.folder / name, "rb") as source, open(folder / name, "xb") as target:
                _write_shard(base, plan, source, target, scratch, bar)
                target.flush()
                os.fsync(target.fileno())


def _write_shard(
    base: Checkpoint,
    plan: Plan,
    source: BinaryIO,
    target: BinaryIO,
    scratch: Scratch,
    bar: Any,
) -> None:
    """Copy one file, with the header as it is, and merged tensors in place of those in the plan."""
    first = source.read(_LENGTH)
    header = source.read(int.from_bytes(first, "little"))
    table: dict[str, Any] = json.loads(header)
    table.pop("__metadata__", None)
    target.write(first + header)
    begin = source.tell()
    for name, entry in sorted(table.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        if deltas := plan.get(name):
            blocks = rounded_blocks(base.tensor(name), deltas, name=name, scratch=scratch)
            for _, block in blocks:
                target.write(tensor_bytes(block))
        else:
            _copy(source, begin + start, stop - start, target)
        bar.update()


def _copy(source: BinaryIO, start: int, size: int, target: BinaryIO) -> None:
    source.seek(start)
    while size > 0:
        data = source.read(min(size, _COPIED))
        target.write(data)
        size -= len(data)


def _record(
    model: str, named: Sequence[tuple[object, float]], opened: Sequence[tuple[Part, float]]
) -> str:
    """Return what the folder was made of, as JSON."""
    from steer import __version__

    rows = []
    for (given, coefficient), (part, _) in zip(named, opened, strict=True):
        row: dict[str, object] = {"coefficient": coefficient}
        if isinstance(given, str | Path):
            row["from"] = Path(given).name if Path(given).exists() else str(given)
        if isinstance(part, Vector):
            row |= {"method": part.provenance.method, "domain": part.provenance.domain}
        rows.append(row)
    base = Path(model).resolve().name if Path(model).exists() else model
    value = {"base": base, "merged": rows, "version": __version__}
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _check_target(target: Path) -> None:
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise MergeError(
            f"{target}: there is something already",
            found="a folder that is not empty" if target.is_dir() else "no folder",
            expected="a new or empty folder",
            do="choose another folder, or remove this one",
        )
    if not target.parent.is_dir():
        raise MergeError(
            f"{target}: its parent folder does not exist",
            found=f"no folder {target.parent}",
            expected="a folder to write into",
            do=f"mkdir -p {target.parent}",
        )


def _check_space(folder: Path, files: Sequence[Path]) -> None:
    needed = sum(path.stat().st_size for path in files if path.is_file())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MergeError(
            "the merged model does not fit on the disk",
            found=f"{free} bytes free in {folder}",
            expected=f"{needed} bytes",
            do="write to another disk",
        )
