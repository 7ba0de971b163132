"""Vectors on the Hub: there and back, with a card, pinned, offline, and nothing trusted."""

import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants

import steer
from steer.algebra import (
    DomainGate,
    LayerStats,
    LowRank,
    ModelInfo,
    Part,
    Provenance,
    Scope,
    Tuning,
    Vector,
    Weight,
    compose,
)
from steer.demo import MODEL_PATH
from steer.errors import ArgumentError, CapabilityError, CompositionError, VectorFileError
from steer.show import Result, Row
from tests.hub.server import TOKEN, Hub
from tests.repository.blocks import ROOT

pytestmark = pytest.mark.filterwarnings(  # of the Hub's client, where it uploads without Xet
    "ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"
)

MODEL = ModelInfo("someone/small", "abc", 6, 8, "c" * 64, "t" * 64, "p" * 64)


def made(domain: str = "medical", seed: int = 0) -> Vector:
    """Return a tuned vector of two layers, with records."""
    generator = torch.Generator().manual_seed(seed)
    directions = {layer: torch.randn(8, generator=generator) for layer in (2, 3)}
    return replace(
        Vector.of(directions),
        provenance=Provenance("palrs", {"position": "template[-1]"}, domain, 60, "f" * 64, MODEL),
        stats={2: LayerStats(4.0, 0.1, 0.9)},
        tuning=Tuning(3, 1.5, score=0.875, kl=0.25, unsteered=0.5),
    )


def equal(left: Vector, right: Vector) -> bool:
    """Whether two vectors have the same tensors and records: whether their files are the same."""
    files = Path("left.safetensors"), Path("right.safetensors")
    for vector, file in zip((left, right), files, strict=True):
        vector.save(file)
    return files[0].read_bytes() == files[1].read_bytes()


def without_hub(vector: Vector) -> Vector:
    """Return a vector without the record of where it was loaded from."""
    kept = {name: v for name, v in vector.provenance.arguments.items() if name != "hub"}
    return replace(vector, provenance=replace(vector.provenance, arguments=kept))


def card_of(hub: Hub, repo: str) -> tuple[dict[str, object], str]:
    """Return the metadata and the text of a repository's card."""
    _, front, text = hub.files(repo)["README.md"].decode().split("---\n", 2)
    return yaml.safe_load(front), text


def test_a_vector_comes_back_bit_for_bit_and_names_its_commit(hub: Hub, tmp_path: Path) -> None:
    vector = made()
    commit = vector.push_to_hub("me/cheerful", token=TOKEN)
    vector.save(tmp_path / "here.safetensors")
    stored = hub.files("me/cheerful")["medical.safetensors"]
    assert stored == (tmp_path / "here.safetensors").read_bytes()
    found = Vector.from_hub("me/cheerful")
    assert equal(without_hub(found), vector)
    named = f"hf://me/cheerful@{commit}/medical.safetensors"
    assert found.provenance.arguments["hub"] == named
    found.save(tmp_path / "kept.safetensors")
    assert Vector.load(tmp_path / "kept.safetensors").provenance.arguments["hub"] == named


def test_a_revision_is_what_it_was(hub: Hub) -> None:
    first, second = made(seed=1), made(seed=2)
    commit = first.push_to_hub("me/cheerful", token=TOKEN)
    later = second.push_to_hub("me/cheerful", token=TOKEN)
    assert commit != later
    assert equal(without_hub(Vector.from_hub("me/cheerful", revision=commit)), first)
    assert equal(without_hub(Vector.from_hub("me/cheerful")), second)
    with pytest.raises(VectorFileError, match="me/cheerful"):
        Vector.from_hub("me/cheerful", revision="0" * 40)


def test_a_composition_comes_back_at_its_setting(hub: Hub) -> None:
    medical, legal = made(), replace(made("legal", 1), tuning=None)
    knobs = compose(medical=Part(medical, "ablate", Scope("response")), legal=legal)
    commit = knobs(medical=0.5, legal=-0.3).push_to_hub("me/both", token=TOKEN)
    found = steer.Composition.from_hub("me/both")
    assert found.domains == ("legal", "medical")
    assert found.coefficients.tolist() == [[-0.3, 0.5]]
    part = found.parts["medical"]
    assert (part.operator, part.scope) == ("ablate", Scope("response"))
    assert part.vector.tuning == Tuning(None, 0.5, "ablate", Scope("response"))  # no old figures
    for domain, vector in (("medical", medical), ("legal", legal)):
        one = Vector.from_hub("me/both", domain=domain, revision=commit)
        assert equal(without_hub(replace(one, tuning=vector.tuning)), vector)
    with pytest.raises(VectorFileError, match="several vectors"):
        Vector.from_hub("me/both")
    with pytest.raises(VectorFileError, match=r"legal, medical[\s\S]*finance.safetensors"):
        Vector.from_hub("me/both", domain="finance")


def test_a_tuning_that_says_the_same_keeps_its_figures(hub: Hub) -> None:
    vector = made()[3]
    compose(medical=vector)(1.5).push_to_hub("me/same", token=TOKEN)
    assert Vector.from_hub("me/same").tuning == vector.tuning


def test_a_gate_travels_with_the_vectors(hub: Hub) -> None:
    gate = DomainGate(("medical",), torch.eye(2, 8), 0)
    compose(medical=made(), gate=gate).push_to_hub("me/gated", token=TOKEN)
    stored = steer.Composition.from_hub("me/gated").parts["medical"].vector.gate
    assert stored is not None
    assert torch.equal(stored.centroids, gate.centroids)
    assert "knobs.gated(knobs.parts['medical'].vector.gate)" in card_of(hub, "me/gated")[1]


def test_the_card_states_what_is_known(hub: Hub) -> None:
    class Baselines(Result):
        @property
        def title(self) -> str:
            return "Random vectors"

        @property
        def rows(self) -> list[Row]:
            return [{"vector": "random|1", "value": 0.25, "low": 0.125, "high": 0.375}]

    vector = made()
    vector.push_to_hub(
        "me/cheerful", Baselines(), "Judged by *hand*.", license="Apache-2.0", token=TOKEN
    )
    metadata, text = card_of(hub, "me/cheerful")
    assert metadata == {
        "library_name": "steer",
        "tags": ["steer", "activation-steering", "steering-vector"],
        "base_model": ["someone/small"],
        "base_model_relation": "adapter",
        "license": "apache-2.0",
    }
    for said in (
        "layer 3, coefficient 1.5, add on all, accuracy 87.5%, 50.0% unsteered, KL 0.25",
        "| random\\|1 | 0.25 | 0.125 | 0.375 |",
        "### Random vectors",
        "Judged by *hand*.",
        "Apache-2.0, as in the files.",
        "## Limits",
    ):
        assert said in text
    assert Vector.from_hub("me/cheerful").provenance.license == "Apache-2.0"


@pytest.mark.usefixtures("hub")
def test_a_card_cannot_show_anything() -> None:
    with pytest.raises(ArgumentError, match="model card"):
        made().push_to_hub("me/cheerful", 3, token=TOKEN)  # type: ignore[arg-type]


def test_records_cannot_forge_the_card(hub: Hub) -> None:
    """What a file says of itself stays text: no metadata, no heading, no row, no link."""
    forged = "MIT\n---\nlicense: mit\n# [Free](http://x) | <b>"
    vector = made()
    arguments = {"warnings": (forged,), "note": forged}
    provenance = replace(vector.provenance, license=forged, arguments=arguments)
    replace(vector, provenance=provenance).push_to_hub("me/forged", token=TOKEN)
    metadata, shown = card_of(hub, "me/forged")
    assert metadata["license"] == "other"
    assert not re.search("^---", shown, re.M)
    assert "[Free]" not in shown.replace("\\[Free\\]", "")
    assert "<b>" not in shown.replace("\\<b>", "")
    assert not re.search(r"^# \S*Free", shown, re.M)


def test_a_path_is_no_base_model_and_weights_are_tagged(hub: Hub) -> None:
    site = Weight("model.layers.0.mlp.down_proj.weight")
    model = replace(MODEL, model_id="/home/someone/small")
    vector = Vector({site: LowRank(torch.randn(4, 2), torch.randn(2, 4))}, Provenance(model=model))
    vector.push_to_hub("me/weights", token=TOKEN)
    metadata, text = card_of(hub, "me/weights")
    assert "base_model" not in metadata
    assert metadata["tags"] == ["steer", "activation-steering", "task-vector"]
    assert "license" not in metadata
    assert "steer merge" in text
    assert equal(without_hub(Vector.from_hub("me/weights")), vector)


def test_the_code_of_the_card_runs(
    hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = Vector.load(ROOT / "vectors/toy/medical.safetensors")
    vector = replace(vector, gate=None)
    vector.push_to_hub("me/toy", token=TOKEN)
    here, elsewhere = re.findall(r"```python\n(.+?)```", card_of(hub, "me/toy")[1], re.S)
    base = re.search(r"from_pretrained\((.+)\)", here)
    assert base is not None
    assert vector.tuning is not None
    used: dict[str, Any] = {}
    exec(here.replace(base[1], repr(str(MODEL_PATH))).replace("…", "Is it safe?"), used)
    lm = used["lm"]
    assert isinstance(lm, steer.Model)
    said = capsys.readouterr().out.strip()
    part = vector if vector.tuning.layer is None else vector[vector.tuning.layer]
    with lm.steered(part, vector.tuning.coefficient):
        expected = lm.generate("Is it safe?")
    assert said == expected.strip() != lm.generate("Is it safe?").strip()
    cached = next(Path(constants.HF_HUB_CACHE).rglob("snapshots/*/*.safetensors"))
    monkeypatch.chdir(cached.parent)
    names: dict[str, torch.Tensor] = {}
    exec(elsewhere, names)
    assert any(torch.equal(names["direction"], vector.direction(n)) for n in part.layers)


def test_what_was_fetched_is_there_without_the_network(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = made()
    commit = compose(medical=vector, legal=made("legal"))(1.5).push_to_hub("me/off", token=TOKEN)
    with pytest.raises(VectorFileError, match="HF_HUB_OFFLINE"):
        Vector.from_hub("me/off", domain="medical", local_files_only=True)
    Vector.from_hub("me/off", domain="medical")
    asked = len(hub.asked)
    found = Vector.from_hub("me/off", domain="medical", local_files_only=True)
    assert equal(without_hub(replace(found, tuning=vector.tuning)), vector)
    assert found.provenance.arguments["hub"] == f"hf://me/off@{commit}/medical.safetensors"
    with pytest.raises(VectorFileError):  # only one of its domains was fetched
        steer.Composition.from_hub("me/off", local_files_only=True)
    code = "import steer; print(steer.Vector.from_hub('me/off', domain='medical').layers)"
    around = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": "cache"}
    run = [sys.executable, "-c", code]
    path = {"PYTHONPATH": str(ROOT)}
    said = subprocess.check_output(run, text=True, env={**os.environ, **around, **path})
    assert said.strip() == "(2, 3)"
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody answers
    assert equal(Vector.from_hub("me/off", domain="medical"), found)
    assert len(hub.asked) == asked


def test_a_hub_that_cannot_be_reached_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(VectorFileError, match="me/nothing"):
        Vector.from_hub("me/nothing")
    with pytest.raises(VectorFileError, match="me/nothing"):
        made().push_to_hub("me/nothing", token=TOKEN)
    assert hub.asked == []


def test_names_that_lead_elsewhere_are_never_fetched(hub: Hub, tmp_path: Path) -> None:
    made().save(tmp_path / "v.safetensors")
    data = (tmp_path / "v.safetensors").read_bytes()
    names = ("../../evil.safetensors", "a/../../evil.safetensors", "..\\evil.safetensors")
    hub.commit("me/evil", {**dict.fromkeys(names, data), "/evil.safetensors": data})
    with pytest.raises(VectorFileError, match="lacks this vector"):
        steer.Composition.from_hub("me/evil")
    assert not any("resolve" in request for request in hub.asked)
    assert list(tmp_path.rglob("*evil*safetensors")) == []
    hub.commit("me/evil", {"good.safetensors": data})
    assert steer.Composition.from_hub("me/evil").domains == ("good",)
    for domain in ("../evil", "/etc/passwd", "..", "..\\evil"):
        with pytest.raises(CompositionError, match="file name"):
            Vector.from_hub("me/evil", domain=domain)
        odd = replace(made(), provenance=Provenance(domain=domain))
        with pytest.raises(CompositionError, match="file name"):
            odd.push_to_hub("me/odd", token=TOKEN)
    assert "me/odd" not in hub.repos


def test_files_of_the_hub_are_validated_and_never_unpickled(hub: Hub, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    made().save(tmp_path / "v.safetensors")
    damaged = bytearray((tmp_path / "v.safetensors").read_bytes())
    damaged[60] ^= 1
    for k, data in enumerate((pickle.dumps(Bomb()), bytes(damaged), b"")):
        hub.commit(f"me/bad{k}", {"v.safetensors": data})
        with pytest.raises(VectorFileError, match=r"v\.safetensors"):
            Vector.from_hub(f"me/bad{k}")
    assert not (tmp_path / "ran").exists()


def test_a_commit_that_is_none_is_refused(hub: Hub, tmp_path: Path) -> None:
    made().save(tmp_path / "v.safetensors")
    files = {"v.safetensors": (tmp_path / "v.safetensors").read_bytes()}
    hub.commit("me/odd", files, sha="not-a-commit")
    with pytest.raises(VectorFileError, match="did not name a commit"):
        Vector.from_hub("me/odd")


def test_what_is_there_is_neither_mixed_nor_overwritten(hub: Hub) -> None:
    before = hub.commit("me/model", {"model.safetensors": b"weights", "README.md": b"mine"})
    with pytest.raises(VectorFileError, match=r"model\.safetensors"):
        made().push_to_hub("me/model", token=TOKEN)
    assert hub.at("me/model") == (before, hub.files("me/model"))
    compose(medical=made(), legal=made("legal")).push_to_hub("me/two", token=TOKEN)
    with pytest.raises(VectorFileError, match=r"legal\.safetensors"):
        made().push_to_hub("me/two", token=TOKEN)


def test_a_commit_in_between_is_not_lost(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    made().push_to_hub("me/busy", token=TOKEN)
    at = hub.at

    def other(repo: str, revision: str = "main") -> tuple[str, dict[str, bytes]] | None:
        found = at(repo, revision)
        monkeypatch.setattr(hub, "at", at)
        hub.commit("me/busy", {"legal.safetensors": b"of another"})
        return found

    monkeypatch.setattr(hub, "at", other)
    with pytest.raises(VectorFileError, match="me/busy"):
        made(seed=1).push_to_hub("me/busy", token=TOKEN)
    assert hub.files("me/busy")["legal.safetensors"] == b"of another"


def test_who_may_not_write_is_told(hub: Hub) -> None:
    with pytest.raises(VectorFileError, match="hf auth login"):
        made().push_to_hub("me/cheerful", token="hf_wrong")
    with pytest.raises(VectorFileError, match="Repo id must"):
        made().push_to_hub("not a name", token=TOKEN)
    assert hub.repos == {}
    made().push_to_hub("cheerful", private=True, token=TOKEN)  # in one's own namespace
    assert hub.hidden == {"me/cheerful": True}
    assert "steer.Vector.from_hub('me/cheerful')" in card_of(hub, "me/cheerful")[1]


@pytest.mark.usefixtures("hub")
def test_rows_are_refused() -> None:
    rows = compose(medical=made())([{"medical": 1.0}, {"medical": 0.0}])
    with pytest.raises(CapabilityError, match="per prompt"):
        rows.push_to_hub("me/rows", token=TOKEN)
