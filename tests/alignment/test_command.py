"""`steer align` writes what the functions return, and says what was kept."""

from pathlib import Path

import pytest
import torch

from steer.algebra import Vector
from steer.alignment import alignment_vector, dare, low_rank, magnitude
from tests.alignment.models import pair, saved
from tests.cli.run import steer
from tests.store.samples import bits


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    base, aligned = pair("llama", dtype=torch.bfloat16)
    return str(saved(base, folder / "base")), str(saved(aligned, folder / "aligned"))


@pytest.mark.parametrize(
    "form", ["", "--rank 2", "--energy 0.8", "--ties 0.3", "--dare 0.5 --seed 4"]
)
def test_every_form(form: str, folders: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "new" / "medical.safetensors"
    status, printed, err = steer(
        "align", *folders, "-o", str(out), *form.split(), "--domain", "medical"
    )
    assert status == 0, err
    assert f"saved {out}" in printed
    vector = alignment_vector(*folders, progress=False)
    wanted = {
        "": lambda: vector,
        "--rank": lambda: low_rank(vector, rank=2)[0],
        "--energy": lambda: low_rank(vector, energy=0.8)[0],
        "--ties": lambda: magnitude(vector, 0.3),
        "--dare": lambda: dare(vector, 0.5, seed=4),
    }[form.partition(" ")[0]]()
    found = Vector.load(out)
    assert bits(found) == bits(wanted)
    assert found.provenance.domain == "medical"


def test_only_some_parameters_in_another_precision(
    folders: tuple[str, str], tmp_path: Path
) -> None:
    patterns = ["*.mlp.*", "*.1.self_attn.q_proj.weight"]
    some = ("--include", patterns[0], "--include", patterns[1], "--dtype", "bfloat16")
    wanted = alignment_vector(*folders, include=patterns, dtype=torch.bfloat16, progress=False)
    for form, make in (("", lambda v: v), ("--ties 0.5", lambda v: magnitude(v, 0.5))):
        out = tmp_path / "v.safetensors"
        status, _, err = steer("align", *folders, "-o", str(out), *some, *form.split())
        assert status == 0, err
        assert bits(Vector.load(out)) == bits(make(wanted))


def test_the_help_says_what_ties_does_not_do() -> None:
    status, printed, _ = steer("align", "--help")
    assert status == 0
    words = " ".join(printed.replace("│", " ").split())
    assert "no sign is elected" in words


def test_the_table_says_what_was_kept(folders: tuple[str, str], tmp_path: Path) -> None:
    _, printed, _ = steer("align", *folders, "-o", str(tmp_path / "v.safetensors"), "--rank", "2")
    _, table = low_rank(alignment_vector(*folders, progress=False), rank=2)
    assert repr(table) in printed
    _, printed, _ = steer("align", *folders, "-o", str(tmp_path / "v.safetensors"), "--ties", "0.3")
    assert "magnitude(density=0.3)" in printed


def test_two_forms_and_two_equal_models_are_refused(
    folders: tuple[str, str], tmp_path: Path
) -> None:
    out = str(tmp_path / "v.safetensors")
    status, _, err = steer("align", *folders, "-o", out, "--rank", "2", "--dare", "0.5")
    assert status == 1
    assert "more than one form" in err
    status, _, err = steer("align", folders[0], folders[0], "-o", out)
    assert status == 1
    assert "the two models are the same" in err
    assert not Path(out).exists()


def test_a_vector_is_not_written_into_its_own_models(folders: tuple[str, str]) -> None:
    for folder in folders:
        file = next(Path(folder).glob("*.safetensors"))
        before = file.read_bytes()
        status, _, err = steer("align", *folders, "-o", str(file), "--rank", "2")
        assert status == 1
        assert "into one of the models" in err
        assert file.read_bytes() == before
