"""What a newcomer to the command line meets: advice in its options, early refusals, plain words."""

import json
from pathlib import Path

import pytest

from steer import Model, Vector
from steer.cli._advice import with_options
from steer.demo import vectors_path
from steer.demo.language import pairs
from tests.cli.run import steer
from tests.cli.test_commands import good, write
from tests.cli.test_errors import refused

MEDICAL = str(vectors_path() / "medical.safetensors")


class Option:
    """What the command line knows of an option."""

    def __init__(self, name: str, *off: str) -> None:
        self.name, self.opts = name, [f"--{name.replace('_', '-')}"]
        self.secondary_opts = list(off)


OPTIONS = [Option("columns"), Option("kl"), Option("on_bad"), Option("at"), Option("dtype")]
OPTIONS += [Option("strict", "--no-strict"), Option("split")]


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model can be loaded."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Model, "from_pretrained", refuse)


@pytest.mark.parametrize(
    ("advice", "wanted"),
    [
        ('columns={"prompt": ..., "chosen": ...}', "--columns prompt=…,chosen=…"),
        ('say so: columns={"system": "system_prompt"}', "say so: --columns system=system_prompt"),
        ('x; on_bad="report" leaves rows out', "x; --on-bad report leaves rows out"),
        ("limits=Limits(kl=0.5), or less", "--kl 0.5, or less"),
        ('write at=["template", "response_mean"]', "write --at template,response_mean"),
        ("name it: position='template[-1]'", "name it: --at template[-1]"),
        ("dtype=torch.float32 or", "--dtype float32 or"),
        ("pass strict=False to steer", "pass --no-strict to steer"),
        ("pass strict=True", "pass --strict"),
        ("choose one with split=", "choose one with --split"),
        ("pass neutral=[...] or y=f(x)", "pass neutral=[...] or y=f(x)"),
    ],
)
def test_advice_in_python_names_the_option_of_the_same_meaning(advice: str, wanted: str) -> None:
    assert with_options(advice, OPTIONS) == wanted


def test_columns_are_named_as_an_option_and_can_be_given(tmp_path: Path) -> None:
    source = tmp_path / "pairs.csv"
    rows = [f"{p.prompt},{p.chosen},{p.rejected}" for p in pairs("medical", 24)]
    source.write_text("q,good,bad\n" + "\n".join(row for row in rows if row.count(",") == 2))
    command = ("extract", "demo", str(source), "-o", str(tmp_path / "v"), "--method", "palrs")
    message = refused(*command)
    assert "--columns prompt=…,chosen=…,rejected=…" in message
    good(*command, "--columns", "prompt=q,chosen=good,rejected=bad")
    assert Vector.load(tmp_path / "v").provenance.pairs == source.read_text().count("\n")


def test_rows_that_are_no_pairs_are_listed_where_they_are_left_out(tmp_path: Path) -> None:
    source = Path(write(tmp_path / "p.jsonl", pairs("medical", 24)))
    bad = {"prompt": "Is it?", "chosen": "No.", "rejected": "No."}
    source.write_text(source.read_text() + (json.dumps(bad) + "\n") * 7)
    command = ("extract", "demo", str(source), "-o", str(tmp_path / "v"), "--method", "palrs")
    assert "--on-bad report" in refused(*command)
    status, _, err = steer(*command, "--on-bad", "report")
    assert status == 0
    assert err.count("chosen and rejected are equal") == 5
    assert "left out: 2 more rows" in err
    assert "UserWarning" not in err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--layers", "40"), "layers 0 to 5"),
        (("--kl", "0"), "0.5"),
        (("--budget", "5"), "6"),
        (("--at", "nowhere"), "--at template,response_mean"),
        (("--at", "template,template"), "named twice"),
        (("--method", "guess"), "palrs"),
    ],
)
@pytest.mark.usefixtures("unloaded")
def test_what_no_model_is_needed_for_is_refused_before_one_is_loaded(
    option: tuple[str, str], said: str, tmp_path: Path
) -> None:
    source = write(tmp_path / "p.jsonl", pairs("medical", 20))
    status, out, err = steer("extract", "demo", source, "-o", str(tmp_path / "v"), *option)
    assert status in (1, 2)
    assert out == ""
    assert said in " ".join(err.split())


def test_a_vector_of_few_pairs_that_nothing_measured_is_said_to_be_one(tmp_path: Path) -> None:
    out = str(tmp_path / "v")
    for count, few in ((1, True), (20, False)):
        source = write(tmp_path / f"{count}.jsonl", pairs("medical", count))
        _, _, err = steer("extract", "demo", source, "-o", out, "--method", "palrs")
        assert ("Warning: 1 pair cannot show" in err) == few


def test_the_words_of_the_card_are_explained(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", pairs("medical", 20))
    where = ("--layers", "4", "--at", "template[-1]", "--budget", "6")
    printed = good("extract", "demo", source, "-o", str(tmp_path / "v"), *where)
    for word in ("objective", "detectable", "× N tried"):
        assert f"\n{word}: " in printed
    tuning = Vector.load(tmp_path / "v").tuning
    assert tuning is not None
    assert tuning.unsteered is not None
    assert f"{tuning.unsteered:.1%} unsteered" in " ".join(
        good("inspect", str(tmp_path / "v")).split()
    )


def test_a_stored_claim_is_printed_as_shares() -> None:
    file = Path(__file__).parents[2] / "vectors/smollm2-135m/cheerful.safetensors"
    printed = good("inspect", str(file))
    assert "Claim: cheerful answers" in printed
    assert "items}" not in printed


@pytest.mark.filterwarnings("always::steer.errors.DataWarning")
def test_warnings_are_printed_without_the_code_they_come_from(tmp_path: Path) -> None:
    letters = [f"Ask a doctor {k}." for k in range(30)]
    rows = [{"prompt": text, "chosen": "Yes.", "rejected": "No."} for text in letters]
    source = tmp_path / "p.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("extract", "demo", str(source), "-o", str(tmp_path / "v"), "--method", "palrs")
    _, _, err = steer(*command)
    assert err.startswith("Warning: a vector of these pairs may not steer")
    assert "DataWarning" not in err
    assert ".py:" not in err


def test_a_comma_in_a_strength_is_said_to_part_two() -> None:
    said = "0,5 is two strengths, 0 and 5; one strength has a decimal point: 0.5"
    assert said in steer("generate", "demo", "-v", f"{MEDICAL}:0,5", "Hello")[2]
    for clear in ("0.5", "-1,0,1", "-0.5,0.5", "0,-1"):
        assert "two strengths" not in steer("generate", "demo", "-v", f"{MEDICAL}:{clear}", "a")[2]
    assert f"{MEDICAL}:0.5" in refused("console", "demo", "-v", f"{MEDICAL}:0,5")


@pytest.mark.filterwarnings("always::steer.errors.DataWarning")
def test_answers_that_the_toy_cannot_read_apart_are_said_to_be_so(tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {k}?", "chosen": " (A)", "rejected": " (B)"} for k in range(20)]
    source = tmp_path / "p.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, _, err = steer("extract", "demo", str(source), "-o", str(tmp_path / "v"))
    assert "reads the chosen and the rejected answers as the same text" in err
    assert "'demo' is a toy" in err


def test_a_misspelt_special_name_is_not_looked_up_elsewhere(unloaded: None) -> None:
    said = refused("generate", "smollm", "A question?")
    assert "smollm2" in said


def test_an_import_writes_a_vector_file_under_its_own_suffix(tmp_path: Path) -> None:
    out = tmp_path / "medical.gguf"
    printed = good("export", MEDICAL, str(out), "--everywhere")
    assert "unscaled" in printed
    said = refused("import", str(out), str(tmp_path / "again.gguf"))
    assert "again.safetensors" in said
    assert not (tmp_path / "again.gguf").exists()


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    said = refused("inspect", str(tmp_path / "none.safetensors"))
    assert "check the path" in said
    assert "disk" not in said
