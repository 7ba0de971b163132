"""`steer extract`, `generate`, `inspect` and `methods` on the demo model and on another one."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import steer as library
from steer import DomainGate, Vector
from steer.algebra import operators
from steer.cli._common import load_model
from steer.demo import load_model as load_demo
from steer.demo.language import NEUTRAL_PROMPTS, pairs
from steer.errors import ArchitectureError
from steer.extract import POSITIONS
from tests.cli.run import steer
from tests.registered import METHODS
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
    palrs = ("--method", "palrs", "--at", "template")
    printed = good("extract", "demo", source, "-o", out, "--domain", "medical", *palrs)
    assert f"saved {out}" in printed
    return out


def test_extract_writes_what_the_library_computes(file: str) -> None:
    lm = library.Model.from_pretrained(_demo_path())
    recorded = library.record(lm, pairs("medical", 24), at="template", progress=False)
    wanted, found = library.palrs(recorded), Vector.load(file)
    assert found.provenance.domain == "medical"
    assert found.provenance.pairs == 24
    assert found.layers == wanted.layers
    for layer in wanted.layers:
        torch.testing.assert_close(found.direction(layer), wanted.direction(layer))


def test_extract_one_file_per_domain(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", pairs("legal", 8) + pairs("financial", 8), domain=True)
    out = str(tmp_path / "{domain}.safetensors")
    good("extract", "demo", source, "-o", out, "--method", "palrs")
    for name in ("legal", "financial"):
        assert Vector.load(tmp_path / f"{name}.safetensors").provenance.domain == name


def test_extract_another_method_and_position(tmp_path: Path) -> None:
    source, out = write(tmp_path / "p.jsonl", pairs("legal", 8)), tmp_path / "v.safetensors"
    method = ("--method", "mean_difference", "--at", "response_mean")
    good("extract", "demo", source, "-o", str(out), *method)
    made = Vector.load(out).provenance
    assert made.method == "mean_difference"
    assert made.arguments["position"] == "response_mean"


def test_extract_mean_difference_names_one_position_and_some_layers(tmp_path: Path) -> None:
    source, out = write(tmp_path / "p.jsonl", pairs("legal", 8)), tmp_path / "v.safetensors"
    method = ("--method", "mean_difference", "--at", "template[-1]", "--layers", "1,3-4")
    good("extract", "demo", source, "-o", str(out), *method)
    recorded = library.record(load_demo(), pairs("legal", 8), layers=[1, 3, 4], progress=False)
    wanted = library.mean_difference(recorded, position="template[-1]")
    found = Vector.load(out)
    assert found.layers == (1, 3, 4)
    assert found.provenance.arguments["position"] == "template[-1]"
    for layer in found.layers:
        torch.testing.assert_close(found.direction(layer), wanted.direction(layer))


def test_extract_palrs_chooses_among_the_named_positions_and_layers(tmp_path: Path) -> None:
    source, out = write(tmp_path / "p.jsonl", pairs("legal", 8)), tmp_path / "v.safetensors"
    where = ("--at", "template[-2]", "--layers", "0-1")
    good("extract", "demo", source, "-o", str(out), "--method", "palrs", *where)
    recorded = library.record(load_demo(), pairs("legal", 8), at="template", progress=False)
    wanted = library.palrs(recorded, positions=["template[-2]"], layers=[0, 1])
    assert Vector.load(out).layers == wanted.layers
    assert Vector.load(out).provenance.arguments["position"] == "template[-2]"


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


def test_generate_prints_what_was_written_word_for_word(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "code 10:100: see :key: [bold]and[/bold] {a:ok:b}"
    monkeypatch.setattr(library.Model, "generate", lambda lm, asked, **_: [said for _ in asked])
    assert good("generate", "demo", QUESTION).rstrip("\n") == said


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


def test_generate_behind_the_gate_that_all_files_share(file: str, tmp_path: Path) -> None:
    vector = Vector.load(file)
    gate = DomainGate(("medical", "legal"), torch.eye(2, 128), 0)
    same = replace(gate, centroids=gate.centroids.clone(), accuracy=0.9)
    a, b = str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")
    replace(vector, gate=gate).save(a)
    legal = replace(vector.provenance, domain="legal")
    replace(vector, provenance=legal, gate=same).save(b)
    printed = good("generate", "demo", "--gate", "-v", f"{a}:1", "-v", f"{b}:1", QUESTION)
    lm = load_demo()
    knobs = library.compose(medical=vector, legal=vector, gate=gate)
    with lm.steered(knobs):
        assert lm.generate(QUESTION) == printed.strip()


@pytest.mark.parametrize("opened", [True, False])
def test_the_gate_opens_every_file_of_a_domain(file: str, tmp_path: Path, opened: bool) -> None:
    vector = Vector.load(file)
    near, far = torch.zeros(1, 128), torch.full((1, 128), 1e3)
    centroids = torch.cat([near, far] if opened else [far, near])  # the other is background
    gate = DomainGate(("medical",), centroids, 0)
    files = [str(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    for path, factor in zip(files, (1, 2), strict=True):
        replace(vector * factor, gate=gate).save(path)
    knobs = [argument for path in files for argument in ("-v", f"{path}:0.25")]
    printed = good("generate", "demo", "--gate", *knobs, QUESTION)
    lm = load_demo()
    plain = lm.generate(QUESTION)
    with lm.steered(vector, 0.75):
        assert lm.generate(QUESTION) != plain
        assert printed.strip() == (lm.generate(QUESTION) if opened else plain)


def test_generate_says_that_a_stored_gate_is_not_used(file: str, tmp_path: Path) -> None:
    path = str(tmp_path / "gated.safetensors")
    gate = DomainGate(("medical", "legal"), torch.eye(2, 128), 0)
    replace(Vector.load(file), gate=gate).save(path)
    assert "--gate uses it" in steer("generate", "demo", "-v", f"{path}:1", QUESTION)[2]
    for quiet in (("--gate", "-v", f"{path}:1"), ("-v", f"{file}:1")):
        status, _, err = steer("generate", "demo", *quiet, QUESTION)
        assert status == 0
        assert "--gate" not in err


def test_the_demo_model_is_loaded_in_the_precision_asked_for() -> None:
    plain = load_model("demo", "auto", None)
    assert plain.info == load_demo().info
    assert plain.hf_model.dtype == torch.float32
    assert not plain.hf_model.training
    half = load_model("demo", "bfloat16", "cpu")
    assert half.hf_model.dtype == torch.bfloat16
    assert half.info == plain.info
    with pytest.raises(ArchitectureError, match="meta device"):  # a device without memory
        load_model("demo", "auto", "meta")


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
    for name in (*METHODS, *POSITIONS, *operators()):
        assert name in printed


def test_any_directory_with_a_model(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    rows = [library.Pair(f"Is it {n}?", "Take the drug.", "Ask a doctor.") for n in range(6)]
    source, out = write(tmp_path / "p.jsonl", rows), str(tmp_path / "v.safetensors")
    good("extract", str(folder), source, "-o", out, "--dtype", "float32", "--method", "palrs")
    short = ("--max-new-tokens", "5", "Is it safe?")
    plain = good("generate", str(folder), *short)
    assert good("generate", str(folder), "-v", f"{out}:0", *short) == plain
    assert good("generate", str(folder), "-v", f"{out}:4", *short) != plain


def _demo_path() -> Path:
    from steer import demo

    return demo.MODEL_PATH
