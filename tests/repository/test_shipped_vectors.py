"""The vectors in ``vectors/toy/`` load, fit the demo model, steer it, and are described truly."""

import shutil
from pathlib import Path

import pytest
import torch

import steer
from steer.algebra import inspect_header
from steer.demo import load_model
from steer.demo.data import DOMAINS
from steer.demo.judge import judge
from steer.demo.language import pairs, questions
from steer.extract import get_method
from tests.repository.blocks import ROOT, page

FOLDER = ROOT / "vectors" / "toy"


@pytest.fixture(scope="module")
def lm() -> steer.Model:
    return load_model()


FOUND = ("alignment_score", "position")  # what palrs found, beside what it was given


def test_there_is_one_of_each_kind_for_each_domain_and_one_for_safety() -> None:
    expected = [*DOMAINS, *(f"{d}-weights" for d in DOMAINS), "safety-weights"]
    assert sorted(p.stem for p in FOLDER.glob("*.safetensors")) == sorted(expected)


@pytest.mark.parametrize("name", [*DOMAINS, "safety"])
def test_an_alignment_vector_is_of_rank_16_and_says_what_it_kept(name: str) -> None:
    vector = steer.Vector.load(FOLDER / f"{name}-weights.safetensors")
    assert vector.provenance.domain == name
    assert {term.rank for term in vector.terms.values()} == {16}
    assert 0.9 < float(str(vector.provenance.arguments["kept_energy"])) < 1.0
    assert (FOLDER / f"{name}-weights.safetensors").stat().st_size < 1_100_000


@pytest.mark.parametrize("domain", DOMAINS)
def test_it_is_made_from_a_hundred_pairs_and_tuned(domain: str) -> None:
    vector = steer.Vector.load(FOLDER / f"{domain}.safetensors")
    made = vector.provenance
    assert (made.domain, made.pairs, made.version) == (domain, 100, steer.__version__)
    assert vector.tuning is not None
    assert vector.tuning.layer in vector.layers
    assert (FOLDER / f"{domain}.safetensors").stat().st_size < 20_000


@pytest.mark.parametrize("domain", DOMAINS)
def test_it_names_no_folder_of_the_machine_it_was_made_on(domain: str) -> None:
    text = str(inspect_header(FOLDER / f"{domain}.safetensors"))
    assert "/" not in text.replace("application/", "")
    assert "\\" not in text


@pytest.mark.parametrize("domain", DOMAINS)
def test_it_is_what_its_provenance_says(lm: steer.Model, domain: str) -> None:
    vector = steer.Vector.load(FOLDER / f"{domain}.safetensors")
    made = vector.provenance
    recorded = steer.record(lm, pairs(domain, made.pairs), progress=False)
    given = {name: value for name, value in made.arguments.items() if name not in FOUND}
    again = get_method(made.method)(recorded, domain=domain, **given)
    assert recorded.pairs_fingerprints[domain] == made.pairs_fingerprint
    for layer in vector.layers:
        torch.testing.assert_close(
            again.direction(layer), vector.direction(layer), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize(("sign", "level"), [(-1, "avoidance"), (1, "expert")])
def test_it_moves_its_domain_to_both_ends(
    lm: steer.Model, domain: str, sign: int, level: str
) -> None:
    vector = steer.Vector.load(FOLDER / f"{domain}.safetensors")
    assert vector.tuning is not None
    with lm.steered(vector, sign * vector.tuning.coefficient):
        answers = lm.generate(questions(domain, 20, seed=3))
    found = [judge(text) for text in answers]
    assert sum(j.domain == domain and j.level == level for j in found) >= 16, answers


def test_the_code_of_the_format_page_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in FOLDER.glob("*.safetensors"):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    found = page(ROOT / "vectors" / "README.md")
    found.names["steer"] = steer
    assert found.run() >= 2
    sites, document = found.names["read"]("medical.safetensors")
    vector = steer.Vector.load("medical.safetensors")
    layer = document["tuning"]["layer"]
    assert sites[f"resid_post.{layer}"]["v"].equal(vector.direction(layer))
