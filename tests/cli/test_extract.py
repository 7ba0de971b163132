"""`steer extract` where it chooses: one file of pairs, two, several domains, and in vain."""

import json
from pathlib import Path

import pytest

import steer as library
from steer import Vector
from steer.demo.language import pairs
from tests.cli.run import steer
from tests.cli.test_commands import good, write

FEW = ("--layers", "3-4", "--at", "template[-1],response_mean")


def test_one_file_of_pairs_gives_a_vector_with_its_setting(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", pairs("medical", 40))
    out = str(tmp_path / "v.safetensors")
    printed = good("extract", "demo", source, "-o", out, "--domain", "medical", *FEW)
    assert "on unseen pairs" in printed
    assert "of 8" in printed, "a fifth of the pairs tests the choice"
    assert "PaLRS's rule" in printed
    assert printed.count("  unsteered:  ") == printed.count("  steered:  ") == 3
    assert "may do nothing" not in printed
    vector = Vector.load(out)
    assert vector.provenance.pairs == 24
    assert vector.provenance.method == "mean_difference"
    assert vector.tuning is not None
    assert vector.tuning.layer in (3, 4)
    asked = "I have gout again. Can you help?"
    steered, plain = (good("generate", "demo", *v, asked) for v in (("-v", out), ()))
    assert steered != plain


def test_held_out_pairs_choose_among_all_positions_and_layers(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", pairs("medical", 16))
    held_out = write(tmp_path / "h.jsonl", pairs("medical", 12, split="validation"))
    out = str(tmp_path / "v.safetensors")
    choosing = ("--held-out", held_out, "--kl", "0.2", "--json", *FEW)
    status, said, err = steer("extract", "demo", source, "-o", out, *choosing)
    assert status == 0, err
    (found,) = map(json.loads, said.splitlines())
    tried = {(row["candidate"], row["layer"]) for row in found["settings"]}
    assert tried == {(p, k) for p in ("template[-1]", "response_mean") for k in (3, 4)}
    tuning = Vector.load(out).tuning
    assert tuning is not None
    assert found["coefficient"] == tuning.coefficient
    assert found["layer"] == tuning.layer
    assert found["accuracy"]["steered"]["n"] == 6
    assert len(found["on_topic"]) == 2
    assert found["palrs"]["position"] == "template[-1]"
    assert {"unsteered", "steered", "prompt"} == set(found["answers"][0])
    assert Vector.load(out).provenance.pairs == 16, "all of the first file"


def test_a_method_that_is_named_is_the_only_candidate(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", pairs("medical", 16))
    held_out = write(tmp_path / "h.jsonl", pairs("medical", 12, split="validation"))
    out = str(tmp_path / "v.safetensors")
    named = ("--method", "palrs", "--at", "template[-1]", "--layers", "3")
    good("extract", "demo", source, "-o", out, "--held-out", held_out, *named)
    made = Vector.load(out)
    assert made.provenance.method == "palrs"
    assert made.layers == (3,)
    assert made.tuning is not None


def test_domains_choose_for_themselves(tmp_path: Path) -> None:
    both = pairs("legal", 20) + pairs("medical", 20)
    source = write(tmp_path / "p.jsonl", both, domain=True)
    said = good(
        "extract", "demo", source, "-o", str(tmp_path / "{domain}.safetensors"), "--json",
        "--layers", "4", "--at", "template[-1]",
    )  # fmt: skip
    found = [json.loads(line) for line in said.splitlines()]
    assert [one["domain"] for one in found] == ["legal", "medical"]
    for one in found:
        assert one["pairs"] == 12
        assert one["accuracy"]["steered"]["n"] == 4
        assert Vector.load(one["file"]).provenance.domain == one["domain"]


@pytest.mark.filterwarnings("ignore::steer.errors.DataWarning")
def test_a_vector_that_does_nothing_is_said_to_with_what_to_try(tmp_path: Path) -> None:
    answers = [pair.chosen for pair in pairs("medical", 30)]
    mixed = [
        library.Pair(f"What is {k}?", *(answers[:1] + answers[-1:])[:: 1 if k % 2 else -1])
        for k in range(30)
    ]
    source = write(tmp_path / "p.jsonl", mixed)
    out = str(tmp_path / "v.safetensors")
    printed = good("extract", "demo", source, "-o", out, "--layers", "4", "--at", "response_mean")
    assert "This vector may do nothing: no effect on likelihoods is shown" in printed
    assert "--kl 1" in printed
    assert "docs/howto/does-nothing.md" in printed
    assert f"saved {out}" in printed
    assert f"-v {out}:{Vector.load(out).tuning.coefficient:.3g} 'a prompt'" in printed


def test_quiet_says_nothing_on_standard_error(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", pairs("medical", 20))
    out = str(tmp_path / "v.safetensors")
    where = ("--layers", "4", "--at", "template[-1]", "--budget", "6")
    status, _, err = steer("extract", "demo", source, "-o", out, *where, "--quiet")
    assert status == 0
    assert err == ""
