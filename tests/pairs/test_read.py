"""Files: every kind is read to the letter, and every damage is named with its place."""

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer.errors import PairsError
from steer.pairs import Pair, Pairs

ROW = {"prompt": "Q", "chosen": "a", "rejected": "b"}
LINE = json.dumps(ROW)


def write_jsonl(path, rows, escape=False):
    lines = (json.dumps(row, ensure_ascii=escape) for row in rows)
    path.write_bytes("\n".join(lines).encode())


def write_json(path, rows):
    path.write_bytes(json.dumps(rows, indent=1, ensure_ascii=False).encode())


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


WRITERS = {
    ".jsonl": write_jsonl,
    ".json": write_json,
    ".csv": write_csv,
    ".parquet": write_parquet,
}

text = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]), st.sampled_from("\n\r\t \"',;\\\u2028\ufeff")
    ),
    min_size=1,
).filter(str.strip)
pairs_of_text = st.lists(
    st.tuples(text, text, text, text).filter(lambda t: t[1] != t[2]).map(lambda t: Pair(*t)),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("suffix", WRITERS)
@given(pairs=pairs_of_text)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(suffix, pairs, tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / f"data{suffix}"
    WRITERS[suffix](path, [vars(pair) for pair in pairs])
    assert list(Pairs.load(path)) == pairs


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_gzip_and_byte_order_mark(suffix, tmp_path):
    WRITERS[suffix](tmp_path / f"a{suffix}", [ROW])
    data = b"\xef\xbb\xbf" + (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(data)
    (tmp_path / f"C{suffix}.GZ").write_bytes(gzip.compress(data, mtime=0))
    expected = Pairs.of([Pair("Q", "a", "b")])
    assert Pairs.load(tmp_path / f"b{suffix}") == expected
    assert Pairs.load(str(tmp_path / f"C{suffix}.GZ")) == expected


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_messages_in_files(suffix, tmp_path):
    talk = [{"role": "user", "content": "Q"}]
    answers = [[{"role": "assistant", "content": answer}] for answer in "ab"]
    row = {"prompt": talk, "chosen": answers[0], "rejected": answers[1], "domain": None}
    WRITERS[suffix](tmp_path / f"a{suffix}", [row])
    (pair,) = Pairs.load(tmp_path / f"a{suffix}")
    assert (pair.prompt[0].content, pair.chosen, pair.rejected) == ("Q", "a", "b")


def test_empty_lines_are_no_rows_but_count(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(f"\n{LINE}\r\n\r\n{{}}\n".encode())
    assert len(Pairs.load(tmp_path / "a.jsonl", limit=1)) == 1
    with pytest.raises(PairsError, match=r"a\.jsonl, line 4: "):
        Pairs.load(tmp_path / "a.jsonl")
    (tmp_path / "a.csv").write_bytes(b'prompt,chosen,rejected\n\nQ,"a\nc",b\n\nQ,,b\n\n')
    assert len(Pairs.load(tmp_path / "a.csv", limit=1)) == 1
    with pytest.raises(PairsError, match=r"a\.csv, line 6: field 'chosen' is empty"):
        Pairs.load(tmp_path / "a.csv")


def test_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_jsonl(tmp_path / "a.jsonl", [ROW])
    assert len(Pairs.load("~/a.jsonl")) == 1


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"", r"a\.jsonl is empty"),
        ("a.csv", b"\xef\xbb\xbf\n \n", r"a\.csv is empty"),
        ("a.parquet", b"", r"a\.parquet is empty"),
        ("a.json", b"[]", r"a\.json holds no rows"),
        ("a.csv", b"prompt,chosen,rejected\n", r"a\.csv holds no rows"),
        ("a.tsv", b"x", r"a\.tsv has an unknown suffix\n.*'\.tsv'\n.*\.jsonl, \.jsonl\.gz"),
        ("a.parquet.gz", b"x", "has an unknown suffix"),
        (
            "a.jsonl",
            f"{LINE}\n{LINE[:-9]}".encode(),
            r"a\.jsonl, line 2, column 32: not valid JSON",
        ),
        (
            "a.jsonl",
            f'{LINE}\n{{"prompt": "x"\n{LINE}\n'.encode(),
            r"a\.jsonl, line 2, column 15: not valid JSON",
        ),
        ("a.jsonl", b"[1]\n", r"a\.jsonl, line 1: a row is not an object.*\n.*\[1\] \(list\)"),
        ("a.jsonl", b'{"a": 1, "a": 2}', r"line 1: not valid JSON\n.*repeated key: \['a', 'a'\]"),
        ("a.jsonl", b"9" * 5000, "line 1: not valid JSON\n.*digits"),
        ("a.json", b"[" * 200_000, "line 1: not valid JSON\n.*recursion"),
        ("a.json", f"[{LINE},\n{LINE}".encode(), r"a\.json, line 2, column \d+: not valid JSON"),
        (
            "a.json",
            f"{LINE}\n{LINE}".encode(),
            "line 2, column 1: not valid JSON(.|\n)*name it .jsonl",
        ),
        ("a.json", b'{"data": []}', r"not a list of objects\n.*keys \['data'\]"),
        ("a.json", b"3", r"not a list of objects\n.*3 \(int\)"),
        ("a.json", b'[{"prompt": "Q"}]', r"a\.json, row 0 \(counted from 0\): no columns"),
        ("a.jsonl", LINE.encode() + b"\n\xff", "not UTF-8\n.*byte 0xff at offset 48, in line 2"),
        ("a.csv", b"\xef\xbb\xbfa,\xe9\n", "not UTF-8\n.*byte 0xe9 at offset 5, in line 1"),
        ("a.json", '[{"prompt": "Q"}]'.encode("utf-16"), "not UTF-8\n.*byte 0xff at offset 0"),
        ("a.csv", b"prompt,chosen,chosen\nQ,a,b\n", r"columns of the same name\n.*\['chosen'\]"),
        ("a.csv", b"prompt,chosen,rejected\nQ,a\n", r"line 2: too few fields\n.*2 fields"),
        ("a.csv", b"prompt,chosen,rejected\nQ,a,b,c\n", r"line 2: too many fields\n.*4 fields"),
        ("a.csv", b'prompt,chosen,rejected\nQ,a,"b\n', "line 2: not valid CSV\n.*end of data"),
        ("a.csv", b'prompt,chosen,rejected\nQ,"a"x,b\n', "line 2: not valid CSV"),
        ("a.csv", b"prompt,chosen,rejected\nQ,%s,b" % (b"a" * 200_000), "CSV\n.*field limit"),
        ("a.parquet", b"PAR1 no", r"a\.parquet cannot be read\n.*Arrow"),
        ("a.jsonl.gz", b"plain", r"a\.jsonl\.gz cannot be read\n.*BadGzipFile"),
        ("a.jsonl.gz", gzip.compress(LINE.encode(), mtime=0)[:-9], "cannot be read\n.*EOFError"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 20, "cannot be read\n.*error"),
    ],
)
@pytest.mark.parametrize("on_bad", ["error", "report"])
def test_damaged_files(name, data, message, on_bad, tmp_path):
    (tmp_path / name).write_bytes(data)
    if "row is not an object" in message or "no columns" in message:
        message = message if on_bad == "error" else "holds no valid pair"
    with pytest.raises(PairsError, match=message):
        Pairs.load(tmp_path / name, on_bad=on_bad)


def test_missing_files(tmp_path):
    with pytest.raises(PairsError, match=r"no/a\.jsonl does not exist"):
        Pairs.load(tmp_path / "no" / "a.jsonl")
    with pytest.raises(PairsError, match=r"no_such_file\.jsonl does not exist"):
        Pairs.load("no_such_file.jsonl")
    with pytest.raises(PairsError, match=r"no_such_file\.txt does not exist"):
        Pairs.load("no_such_file.txt")
    with pytest.raises(PairsError, match=r"null is not a file"):
        Pairs.load(Path("/dev/null"))


def test_missing_values_in_parquet(tmp_path):
    rows = [ROW, ROW | {"chosen": None}]
    write_parquet(tmp_path / "a.parquet", rows)
    with pytest.raises(PairsError, match=r"row 1 \(counted from 0\): field 'chosen'.*\n.*None"):
        Pairs.load(tmp_path / "a.parquet")
    numbers = pa.table({"prompt": ["Q"], "chosen": [float("nan")], "rejected": ["b"]})
    pq.write_table(numbers, tmp_path / "b.parquet")
    with pytest.raises(PairsError, match=r"field 'chosen' has the wrong type\n.*nan \(float\)"):
        Pairs.load(tmp_path / "b.parquet")


def test_columns_of_the_same_name_in_parquet(tmp_path):
    columns = [pa.array(["Q"])] * 3
    table = pa.Table.from_arrays(columns, names=["prompt", "chosen", "chosen"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(PairsError, match=r"columns of the same name"):
        Pairs.load(tmp_path / "a.parquet")
