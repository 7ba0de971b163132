"""Files as others publish them."""

import gzip
import json
from pathlib import Path

import pytest

from steer.errors import PairsError
from steer.pairs import Message, Pairs

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
HH = DATA / "hh_rlhf" / "raw" / "harmless-base" / "test.jsonl.gz"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"real files are not at {DATA.name}")


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("anthropic_evals/agreeableness.jsonl", 1000),
        ("anthropic_evals/conscientiousness.jsonl", 1000),
        ("anthropic_evals/desire-for-recursive-self-improvement.jsonl", 1000),
        ("anthropic_evals/politically-conservative.jsonl", 1000),
        ("anthropic_evals/risk-averse.jsonl", 1000),
        ("anthropic_evals/subscribes-to-Buddhism.jsonl", 1000),
        ("bipo/raw/hallucination/train.csv", 700),
        ("bipo/raw/hallucination/test.csv", 200),
        ("bipo/raw/power-seeking/test.csv", 200),
        ("bipo/raw/wealth-seeking/test.csv", 200),
        ("caa/coordinate-other-ais.json", 410),
        ("caa/corrigible-neutral-HHH.json", 340),
        ("caa/myopic-reward.json", 1000),
        ("caa/refusal.json", 458),
        ("caa/survival-instinct.json", 953),
    ],
)
def test_every_row_is_read(path, count):
    pairs = Pairs.load(DATA / path, domain="d")
    assert (len(pairs), pairs.domains, pairs.rejected_rows) == (count, ("d",), ())


def test_answers_of_published_evaluations_keep_their_space():
    pairs = Pairs.load(DATA / "anthropic_evals" / "agreeableness.jsonl")
    assert {pair.chosen for pair in pairs} == {" Yes", " No"}


@pytest.mark.parametrize("path", sorted((DATA / "caa").glob("*.json")), ids=lambda p: p.stem)
def test_answer_letters_are_cut_off_whole(path):
    for pair in Pairs.load(path):
        assert pair.prompt.endswith("\n")
        assert {len(pair.chosen.strip()), len(pair.rejected.strip())} == {3}
        assert pair.chosen.strip()[::2] == pair.rejected.strip()[::2] == "()"


@pytest.mark.parametrize(
    ("name", "lines"), [("power-seeking", ["447", "456"]), ("wealth-seeking", ["238"])]
)
def test_rows_without_a_question_are_reported(name, lines):
    path = DATA / "bipo" / "raw" / name / "train.csv"
    with pytest.raises(PairsError, match=f"line {lines[0]} .*: field 'prompt' is empty"):
        Pairs.load(path)
    with pytest.warns(UserWarning, match=f"{len(lines)} rows are not valid"):
        pairs = Pairs.load(path, on_bad="report")
    assert [row.where.split("line ")[1].split(" ")[0] for row in pairs.rejected_rows] == lines


def test_transcripts():
    with pytest.raises(PairsError, match=r"line 87: field 'chosen' is empty"):
        Pairs.load(HH)
    with pytest.warns(UserWarning, match=r"13 rows are not valid"):
        pairs = Pairs.load(HH, on_bad="report")
    assert len(pairs) == 2299
    assert [int(row.where.rsplit(" ", 1)[1]) for row in pairs.rejected_rows] == [
        87, 517, 668, 764, 926, 1104, 1255, 1320, 1689, 1850, 1951, 1953, 2037,
    ]  # fmt: skip
    assert pairs[0].prompt[0] == Message("user", "what are some pranks with a pen i can do?")
    assert pairs[0].chosen.startswith("No, sorry!  All of these involve a pen")


def test_transcripts_join_to_the_letter():
    rows = [json.loads(line) for line in gzip.decompress(HH.read_bytes()).splitlines()]
    texts = {(row["chosen"], row["rejected"]) for row in rows}
    with pytest.warns(UserWarning, match=r"not valid"):
        pairs = Pairs.load(HH, on_bad="report")
    speaker = {"user": "Human", "assistant": "Assistant"}
    for pair in pairs:
        start = "".join(f"\n\n{speaker[m.role]}: {m.content}" for m in pair.prompt)
        start += "\n\nAssistant: "
        assert (start + pair.chosen, start + pair.rejected) in texts


@pytest.mark.parametrize(
    ("path", "column"),
    [
        ("truthfulqa/raw/TruthfulQA.csv", "Best Answer"),
        ("truthfulqa/raw/mc_task.json", "mc1_targets"),
        ("axbench/concept10_train.parquet", "output_concept"),
        ("gsm8k/raw/test.jsonl", "answer"),
        ("bipo/raw/power-seeking/test_infer.csv", "not_matching"),
    ],
)
def test_files_that_are_no_pairs_say_their_columns(path, column):
    with pytest.raises(PairsError, match=f"{path}, (line|row) .*(.|\n)*found: .*{column}|{column}"):
        Pairs.load(DATA / path)


def test_columns_make_pairs_of_a_question_file():
    columns = {"prompt": "Question", "chosen": "Best Answer", "rejected": "Incorrect Answers"}
    pairs = Pairs.load(DATA / "truthfulqa" / "raw" / "TruthfulQA.csv", columns=columns)
    assert len(pairs) == 817
    assert pairs[0].prompt == "What happens to you if you eat watermelon seeds?"
