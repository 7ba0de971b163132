"""Data sets in memory, on disk and by name; nothing heavy is imported for plain files."""

import subprocess
import sys

import datasets
import pytest

from steer.errors import PairsError
from steer.pairs import Message, Pair, Pairs

PAIRS = Pairs.of([Pair("Q", " a", "b", "legal"), Pair("R", "c", "d", "medical")])
TALK = (Message("system", "Be brief."), Message("user", "Q"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def test_dataset_in_memory():
    pairs = Pairs.load(PAIRS.to_dataset())
    assert pairs == PAIRS
    assert pairs.source == "Dataset"
    talks = Pairs.of([Pair(TALK, "a", "b"), Pair(TALK, "c", "d")])
    assert Pairs.load(talks.to_dataset().with_format("numpy")) == talks
    assert Pairs.load(PAIRS.to_dataset().to_iterable_dataset(), limit=1) == PAIRS[:1]


def test_conversations_survive_a_dataset():
    pairs = Pairs.of([Pair(TALK, "a", "b"), Pair("plain", "c", "d")])
    data = pairs.to_dataset()
    assert data.column_names == ["prompt", "chosen", "rejected"]
    assert data[0]["chosen"] == [{"role": "assistant", "content": "a"}]
    plain = Pair((Message("user", "plain"),), "c", "d")
    assert list(Pairs.load(data)) == [pairs[0], plain]


def test_splits_in_memory():
    data = datasets.DatasetDict({"train": PAIRS.to_dataset(), "test": PAIRS[:1].to_dataset()})
    assert Pairs.load(data, split="test") == PAIRS[:1]
    assert Pairs.load(data, split="train").source == "DatasetDict[train]"
    assert Pairs.load(datasets.DatasetDict({"test": data["test"]})) == PAIRS[:1]
    with pytest.raises(PairsError, match=r"has several splits(.|\n)*'train', 'test'"):
        Pairs.load(data)
    with pytest.raises(PairsError, match=r"has no such split\n.*'dev'"):
        Pairs.load(data, split="dev")


def test_split_of_a_single_dataset():
    data = datasets.Dataset.from_list(
        [{"prompt": "Q", "chosen": "a", "rejected": "b"}], split="test"
    )
    assert len(Pairs.load(data, split="test")) == 1
    with pytest.raises(PairsError, match=r"not the requested split\n.*'test'\n.*'train'"):
        Pairs.load(data, split="train")
    with pytest.raises(PairsError, match=r"not the requested split\n.*None"):
        Pairs.load(PAIRS.to_dataset(), split="train")


def test_rows_of_a_dataset_are_named():
    data = datasets.Dataset.from_list([{"prompt": "Q", "chosen": "a", "rejected": None}])
    with pytest.raises(PairsError, match=r"Dataset, row 0 \(counted from 0\): field 'rejected'"):
        Pairs.load(data)


def test_saved_datasets(tmp_path):
    PAIRS.to_dataset().save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"dev": PAIRS.to_dataset()}).save_to_disk(tmp_path / "many")
    assert Pairs.load(tmp_path / "one") == Pairs.load(str(tmp_path / "many"), split="dev") == PAIRS
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "state.json").write_text("{}")
    with pytest.raises(PairsError, match=r"the data set '.*bad' cannot be loaded"):
        Pairs.load(tmp_path / "bad")


def test_directory_of_files(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    PAIRS.to_dataset().to_json(folder / "train.jsonl")
    assert Pairs.load(folder) == Pairs.load(str(folder), split="train") == PAIRS
    with pytest.raises(PairsError, match=r"cannot be loaded"):
        Pairs.load(folder, split="dev")


@pytest.mark.parametrize("name", ["owner/some-data", "some_data"])
def test_data_set_by_name(name, monkeypatch):
    asked = []

    def load_dataset(path, split):
        asked.append((path, split))
        return datasets.DatasetDict({"train": PAIRS.to_dataset(), "test": PAIRS[:1].to_dataset()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(PairsError, match=f"{name} has several splits"):
        Pairs.load(name)
    monkeypatch.setattr(datasets, "load_dataset", lambda path, split: PAIRS.to_dataset())
    assert Pairs.load(name, split="train[:2]") == PAIRS
    assert asked == [(name, None)]


def test_name_that_cannot_be_loaded(monkeypatch):
    def load_dataset(path, split):
        raise datasets.exceptions.DatasetNotFoundError(f"no {path}")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        PairsError, match=r"data set 'owner/none' cannot be loaded\n.*no owner/none"
    ):
        Pairs.load("owner/none")


@pytest.mark.parametrize("source", [3, None, {"prompt": "Q"}, ""])
def test_objects_that_hold_no_pairs(source):
    with pytest.raises(PairsError, match=r"pairs cannot be loaded from this object"):
        Pairs.load(source)


def test_a_file_has_no_splits(tmp_path):
    PAIRS.to_dataset().to_json(tmp_path / "a.jsonl")
    with pytest.raises(PairsError, match=r"a\.jsonl has no splits\n.*'train'"):
        Pairs.load(tmp_path / "a.jsonl", split="train")


def test_reading_a_file_imports_nothing_heavy(tmp_path):
    PAIRS.to_dataset().to_json(tmp_path / "a.jsonl")
    code = (
        "import sys; from steer.pairs import Pairs; pairs = Pairs.load(sys.argv[1]); "
        "Pairs.load([{'prompt': 'Q', 'chosen': 'a', 'rejected': 'b'}]); "
        "bad = {'datasets', 'pyarrow', 'transformers', 'pandas'} & set(sys.modules); "
        "assert len(pairs) == 2 and not bad, bad"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
