"""`steer extract`, `generate`, `inspect` and `methods` on the demo model and on another one."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import steer as library
from steer import Vector
from steer.demo.language import NEUTRAL_PROMPTS, pairs
from tests.cli.run import steer
from tests.tiny import tiny_model, tiny_tokenizer

QUESTION = "I have gout again. Can you help?"


def write(path: Path, found: Sequence[library.Pair], *, domain: bool = False) -> str:
    """Write pairs as JSONL and return the file's name."""
    rows = [
        {"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected}
        | ({"domain": p.domain} if domain else {})
        for p in found
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def good(*arguments: str, stdin: str = "") -> str:
    """Return what a command that must succeed prints."""
    status, out, err = steer(*arguments, stdin=stdin)
    assert status == 0, err
    return out


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A vector of the demo model, extracted by the command."""
    folder = tmp_path_factory.mktemp("vectors")
    source = write(folder / "pairs.jsonl", pairs("medical", 24))
    out = str(folder / "new" / "medical.safetensors")
    printed = good("extract", "demo", source, "-o", out, "--domain", "medical")
    assert f"saved {out}" in printed
    return out


def test_extract_writes_what_the_library_computes(file: str) -> None:
    lm = library.Model.from_pretrained(_demo_path())
    recorded = library.record(lm, pairs("medical", 24), progress=False)
    wanted, found = library.palrs(recorded), Vector.load(file)
    assert found.provenance.domain == "medical"
    assert found.provenance.pairs == 24
    assert found.layers == wanted.layers
    for layer in wanted.layers:
        torch.testing.assert_close(found.direction(layer), wanted.direction(layer))


def test_extract_one_file_per_domain(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", pairs("legal", 8) + pairs("financial", 8), domain=True)
    good("extract", "demo", source, "-o", str(tmp_path / "{domain}.safetensors"))
    for name in ("legal", "financial"):
        assert Vector.load(tmp_path / f"{name}.safetensors").provenance.domain == name


def test_extract_another_method_and_position(tmp_path: Path) -> None:
    source, out = write(tmp_path / "p.jsonl", pairs("legal", 8)), tmp_path / "v.safetensors"
    method = ("--method", "mean_difference", "--at", "response_mean")
    good("extract", "demo", source, "-o", str(out), *method)
    made = Vector.load(out).provenance
    assert made.method == "mean_difference"
    assert made.arguments["position"] == "response_mean"


def test_extract_with_held_out_pairs_stores_the_setting(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", pairs("medical", 16))
    held_out = write(tmp_path / "h.jsonl", pairs("medical", 12, split="validation"))
    out = str(tmp_path / "v.safetensors")
    choosing = ("--held-out", held_out, "--kl-budget", "50")
    printed = good("extract", "demo", source, "-o", out, *choosing)
    assert "preference accuracy on 6 unseen test pairs" in printed
    tuning = Vector.load(out).tuning
    assert tuning is not None
    assert tuning.kl is not None
    assert tuning.kl <= 50


def test_inspect_prints_what_the_file_holds(file: str) -> None:
    printed = good("inspect", file)
    assert "palrs" in printed
    assert "medical" in printed
    assert "24 pairs" in printed


def test_generate_is_steered_by_the_coefficient(file: str) -> None:
    plain = good("generate", "demo", QUESTION)
    assert good("generate", "demo", "-v", f"{file}:0", QUESTION) == plain
    up = good("generate", "demo", "-v", f"{file}:1", QUESTION)
    down = good("generate", "demo", "-v", f"{file}:-1", QUESTION)
    assert up != down
    lm = library.Model.from_pretrained(_demo_path())
    with lm.steered(Vector.load(file), 1.0):
        assert lm.generate(QUESTION) == up.strip()


def test_generate_reads_prompts_from_standard_input(file: str) -> None:
    lines = list(NEUTRAL_PROMPTS[:3])
    answers = good("generate", "demo", stdin="\n".join(lines) + "\n\n").splitlines()
    assert len(answers) == 3
    assert answers == library.Model.from_pretrained(_demo_path()).generate(lines)


def test_generate_adds_several_vectors(file: str, tmp_path: Path) -> None:
    whole = good("generate", "demo", "-v", f"{file}:1", QUESTION)
    half = tmp_path / "half.safetensors"
    (Vector.load(file) * 0.5).save(half)
    assert good("generate", "demo", "-v", f"{half}:1", "-v", f"{half}:1", QUESTION) == whole


def test_generate_without_a_coefficient_takes_the_files_own(file: str, tmp_path: Path) -> None:
    assert good("generate", "demo", "-v", file, QUESTION) == good(
        "generate", "demo", "-v", f"{file}:1", QUESTION
    )


def test_generate_compares_with_the_unsteered_answer(file: str) -> None:
    printed = good("generate", "demo", "-v", f"{file}:1", "--compare", QUESTION)
    for head in ("prompt", "unsteered", "steered"):
        assert head in printed


def test_generate_takes_scope_and_operator(file: str) -> None:
    plain = good("generate", "demo", QUESTION)
    prompt = good("generate", "demo", "-v", f"{file}:0", "--scope", "last_prompt", QUESTION)
    assert prompt == plain
    good("generate", "demo", "-v", f"{file}:1", "--operator", "ablate", QUESTION)


def test_methods_lists_what_there_is() -> None:
    printed = good("methods")
    for name in ("palrs", "mean_difference", "template", "response_mean", "add", "ablate"):
        assert name in printed


def test_any_directory_with_a_model(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    rows = [library.Pair(f"Is it {n}?", "Take the drug.", "Ask a doctor.") for n in range(6)]
    source, out = write(tmp_path / "p.jsonl", rows), str(tmp_path / "v.safetensors")
    good("extract", str(folder), source, "-o", out, "--dtype", "float32")
    short = ("--max-new-tokens", "5", "Is it safe?")
    plain = good("generate", str(folder), *short)
    assert good("generate", str(folder), "-v", f"{out}:0", *short) == plain
    assert good("generate", str(folder), "-v", f"{out}:4", *short) != plain


def _demo_path() -> Path:
    from steer import demo

    return demo.MODEL_PATH
