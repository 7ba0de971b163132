"""Small files that hold far more than they say: what is read of them is bounded."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steer.errors import ArgumentError, PairsError
from steer.pairs import Pair, Pairs
from tests.repository.blocks import ROOT

MIB = 2**20
LINE = b'{"prompt": "Q", "chosen": "a", "rejected": "b"}\n'
LONG = b'{"prompt": "' + b"Q" * 2000 + b'", "chosen": "a", "rejected": "b"}\n'


def bomb(path: Path, begin: bytes, repeated: bytes, times: int) -> Path:
    """Write a gzip file of a beginning and something that is repeated, a MiB or so at a time."""
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(begin)
        for _ in range(times):
            file.write(repeated)
    assert path.stat().st_size < MIB
    return path


@pytest.mark.parametrize(
    ("name", "begin", "repeated"),
    [
        ("a.jsonl.gz", LINE, LONG * (MIB // len(LONG))),
        ("a.jsonl.gz", LINE, b" " * MIB),
        ("a.jsonl.gz", LINE, b"\n".rjust(1000) * (MIB // 1000)),
        ("a.jsonl.gz", LINE + b'{"prompt": "', b"Q" * MIB),
        ("a.json.gz", b"[", b"[],[],[]," * (MIB // 9)),
        ("a.csv.gz", b"prompt,chosen,rejected\nQ,a,b\n", (b"Q" * 1000 + b",a,b\n") * (MIB // 1005)),
        ("a.csv.gz", b"prompt,chosen,rejected\nQ,a,b\n", b"," * MIB),
    ],
)
def test_a_compressed_file_that_holds_far_more_than_its_size_says_is_refused(
    name: str, begin: bytes, repeated: bytes, tmp_path: Path
) -> None:
    path = bomb(tmp_path / name, begin, repeated, 20)
    with pytest.raises(PairsError, match=r"expands to far more than its size|longer than 16 MiB"):
        Pairs.load(path)
    if not name.startswith("a.json."):
        assert list(Pairs.load(path, limit=1)) == [Pair("Q", "a", "b")]


def parquet(path: Path, *, nested: bool, rows: int = 20_000) -> Path:
    """Write a Parquet file of one long text that is repeated, which is stored once."""

    def repeated(text: str) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))

    prompt: pa.Array = repeated("x" * 30_000)
    count = rows
    if nested:
        message = pa.StructArray.from_arrays([repeated("user"), prompt], ["role", "content"])
        prompt, count = pa.ListArray.from_arrays(pa.array([0, rows], pa.int32()), message), 1
    columns = {"prompt": prompt, "chosen": ["a"] * count, "rejected": ["b"] * count}
    pq.write_table(pa.table(columns), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < MIB // 8
    return path


@pytest.mark.parametrize("nested", [False, True])
def test_a_parquet_file_that_repeats_a_text_is_refused(nested: bool, tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", nested=nested)
    with pytest.raises(PairsError, match="expands to far more than its size"):
        Pairs.load(path)
    if not nested:
        assert Pairs.load(path, limit=2)[1] == Pair("x" * 30_000, "a", "b")


def test_what_is_read_of_a_bomb_is_little(tmp_path: Path) -> None:
    """All of them together would take more than 4 GiB; the bounds are of a few MiB each."""
    paths = [
        bomb(tmp_path / "a.jsonl.gz", LINE, LONG * (MIB // len(LONG)), 200),
        bomb(tmp_path / "b.jsonl.gz", LINE + b'{"prompt": "', b"Q" * MIB, 500),
        parquet(tmp_path / "c.parquet", nested=False, rows=50_000),
        parquet(tmp_path / "d.parquet", nested=True, rows=50_000),
    ]
    code = (
        "import resource, sys, pyarrow.parquet\n"
        "from steer.errors import ArgumentError, PairsError\n"
        "from steer.pairs import Pairs\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = used()\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        Pairs.load(path)\n"
        "    except PairsError:\n"
        "        print(used() - before)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    taken = [int(line) for line in run.stdout.split()]
    assert len(taken) == len(paths)
    assert max(taken) < 600 * 1024, "KiB"


def test_plain_and_ordinary_compressed_files_are_read_whatever_they_hold(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n} " + "x" * 2000, "chosen": "a", "rejected": "b"} for n in range(9000)]
    text = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    assert len(text) > 17 * MIB
    (tmp_path / "a.jsonl").write_bytes(text)
    assert len(Pairs.load(tmp_path / "a.jsonl")) == len(rows)


def test_a_repeated_name_among_very_many_columns(tmp_path: Path) -> None:
    header = ",".join([*(f"c{n}" for n in range(200_000)), "c7"])
    (tmp_path / "a.csv").write_text(f"{header}\n")
    with pytest.raises(PairsError, match=r"columns of the same name\n.*'c7'") as caught:
        Pairs.load(tmp_path / "a.csv")
    assert len(str(caught.value)) < 1000


def test_limits_beyond_all_sizes_are_all() -> None:
    rows = [{"prompt": "Q", "chosen": "a", "rejected": "b"}] * 3
    assert len(Pairs.load(rows, limit=10**30)) == 3
    for limit in (0, -(10**30), 1.5, True, "3"):
        with pytest.raises(ArgumentError, match="limit must be an integer"):
            Pairs.load(rows, limit=limit)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["a\0.jsonl", "x" * 5000, "x" * 5000 + ".csv", "~no-one/a.csv"])
def test_what_is_no_path_is_refused(path: str) -> None:
    for source in (path, Path(path)):
        with pytest.raises(PairsError, match=r"no file can have|cannot be|too long|does not exist"):
            Pairs.load(source)


def test_a_folder_of_everything_is_no_data_set() -> None:
    for path in ("/",):
        with pytest.raises(PairsError, match="too many files for a data set"):
            Pairs.load(path)
