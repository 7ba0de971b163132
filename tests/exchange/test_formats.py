"""What every registered exchange format owes, and a format from outside the package."""

import pickle
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from steer.algebra import Part, Scope, Tuning, Vector
from steer.errors import ArgumentError, CapabilityError, VectorFileError
from steer.exchange import Format, get_format, read, register_format, write
from steer.exchange._registry import _FORMATS
from tests.cli.run import steer
from tests.exchange.laws import (
    LAWS,
    a_file_is_written_whole_or_not_at_all,
    a_pickle_is_never_run,
    what_it_carries_comes_back,
)
from tests.registered import FORMATS
from tests.repository.blocks import ROOT

Law = Callable[[str, Path], None]
GGUF: Any = get_format("gguf")


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", FORMATS)
def test_every_registered_format_keeps_the_law(name: str, law: Law, tmp_path: Path) -> None:
    law(name, tmp_path)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what a test registers."""
    monkeypatch.setattr(_FORMATS, "_values", dict(_FORMATS._values))


@pytest.fixture
def outside(registry: None) -> str:
    """A format in one file outside the package, registered for one test."""
    runpy.run_path(str(Path(__file__).with_name("csv_format.py")))
    return "csv"


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_format_from_outside_is_held_to_the_laws(outside: str, law: Law, tmp_path: Path) -> None:
    law(outside, tmp_path)


def test_a_format_from_outside_is_on_the_command_line(outside: str, tmp_path: Path) -> None:
    vector = Vector.of({2: torch.arange(4.0), 3: -torch.arange(4.0)})
    vector.save(tmp_path / "v.safetensors")
    names = [str(tmp_path / name) for name in ("v.safetensors", "v.csv", "w.safetensors")]
    assert steer("export", f"{names[0]}:0.5", names[1])[0] == 0
    assert steer("import", names[1], names[2], "--from", "csv", "--domain", "legal")[0] == 0
    found = Vector.load(names[2])
    assert torch.equal(found.direction(3), -0.5 * torch.arange(4.0))
    assert found.provenance.domain == "legal"
    assert "csv" in steer("methods")[1]


def _numbered_from_one(path: Path) -> Vector:
    found = GGUF.read(path)
    return Vector.of({layer + 1: found.direction(layer) for layer in found.layers})


def _rounded(path: Path) -> Vector:
    return GGUF.read(path).to(dtype=torch.bfloat16)


def _unpickled(path: Path) -> Vector:
    try:
        return GGUF.read(path)
    except ValueError:
        pickle.loads(path.read_bytes())
        raise


def _in_place(vector: Vector, path: Path) -> None:
    path.write_bytes(b"")
    GGUF.write(vector, path)


def test_options_of_a_format_are_on_the_command_line(tmp_path: Path) -> None:
    Vector.of({3: torch.ones(4)}).save(tmp_path / "v.safetensors")
    names = [str(tmp_path / name) for name in ("v.safetensors", "v.pt", "w.safetensors")]
    assert steer("export", names[0], names[1], "--to", "tensor")[0] == 0
    to_import = ("import", names[1], names[2], "--from", "tensor")
    assert "needs an option" in steer(*to_import)[2]
    assert "an option has no value" in steer(*to_import, "--with", "layer")[2]
    assert steer(*to_import, "--with", "layer=5")[0] == 0
    assert Vector.load(names[2]).layers == (5,)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ({"read": _numbered_from_one}, what_it_carries_comes_back),
        ({"read": _rounded}, what_it_carries_comes_back),
        ({"keeps": ()}, None),
        ({"read": _unpickled}, a_pickle_is_never_run),
        ({"write": _in_place}, a_file_is_written_whole_or_not_at_all),
    ],
)
def test_a_format_that_breaks_a_law_is_noticed(
    registry: None, fault: dict[str, Any], law: Law | None, tmp_path: Path
) -> None:
    register_format(replace(GGUF, name="faulty", **fault))
    if law is None:  # it promises less, and keeps that
        what_it_carries_comes_back("faulty", tmp_path)
        return
    with pytest.raises(AssertionError):
        law("faulty", tmp_path)


def test_a_name_that_is_taken_is_refused(registry: None) -> None:
    with pytest.raises(ArgumentError, match="exists already"):
        register_format(Format(name="gguf", what="another", read=lambda path: None))  # type: ignore[arg-type, return-value]
    with pytest.raises(ArgumentError, match="unknown exchange format"):
        get_format("no such format")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gguf", {"model_hint": 7}),
        ("svec", {"model_type": 7}),
        ("lm-eval", {"blocks": None}),
        ("persona", {"n_layers": "8"}),
        ("persona", {"n_layers": 8.0}),
        ("checkpoint", {"base": 7}),
    ],
)
def test_an_option_of_another_type_is_refused(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match="is not what the format"):
        write(Vector.of({2: torch.ones(4)}), tmp_path / "v", name, **options)


@pytest.mark.parametrize("at", ["", 0, [], "both"])
def test_an_option_that_is_no_choice_is_refused(at: Any, tmp_path: Path) -> None:
    write(Vector.of({2: torch.ones(4)}), tmp_path / "v.svec")
    with pytest.raises(ArgumentError, match="at is not what the format"):
        read(tmp_path / "v.svec", at=at)


@pytest.mark.parametrize("domain", ["", 5])
def test_a_domain_that_is_no_name_is_refused(domain: Any, tmp_path: Path) -> None:
    write(Vector.of({2: torch.ones(4)}), tmp_path / "v.svec")
    with pytest.raises(ArgumentError, match="domain must be a name"):
        read(tmp_path / "v.svec", domain=domain)


def test_a_text_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VectorFileError, match="a text cannot be written"):
        write(Vector.of({2: torch.ones(4)}), tmp_path / "v.gguf", model_hint="\ud800")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [["gguf"], 5])
def test_a_format_by_what_is_no_name_is_refused(name: Any, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="unknown exchange format"):
        write(Vector.of({2: torch.ones(4)}), tmp_path / "v.gguf", name)


def test_an_ending_that_tells_no_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="does not tell the format"):
        write(Vector.of({2: torch.ones(4)}), tmp_path / "vector.bin")
    with pytest.raises(ArgumentError, match="does not tell the format"):
        read(tmp_path / "vector.bin")


def test_an_import_names_its_file_and_format(tmp_path: Path) -> None:
    write(Vector.of({2: torch.ones(4)}), tmp_path / "two.gguf")
    made = read(tmp_path / "two.gguf").provenance
    assert made.method == "import"
    assert made.arguments["format"] == "gguf"
    assert made.arguments["file"] == "two.gguf"
    (tmp_path / "two.gguf").write_bytes(b"nothing")
    with pytest.raises(VectorFileError, match=r"two\.gguf: this is no file of the format 'gguf'"):
        read(tmp_path / "two.gguf")


def test_adding_at_every_token_can_be_meant(tmp_path: Path) -> None:
    tuned = Vector.of({2: torch.ones(4)})
    tuned = replace(tuned, tuning=Tuning(2, 0.5, scope=Scope("response")))
    with pytest.raises(CapabilityError, match="cannot carry this setting"):
        write(tuned, tmp_path / "v.gguf")
    write(Part(tuned), tmp_path / "v.gguf")
    assert torch.equal(read(tmp_path / "v.gguf").direction(2), torch.ones(4))
    tuned.save(tmp_path / "v.safetensors")
    names = [str(tmp_path / name) for name in ("v.safetensors", "w.gguf")]
    assert steer("export", *names)[0] == 1
    assert steer("export", *names, "--everywhere")[0] == 0
    found = read(names[1])
    assert found.tuning is not None
    assert found.tuning.coefficient == 0.5
    assert steer("export", f"{names[0]}:2", names[1], "--to", "gguf", "--everywhere")[0] == 0
    assert torch.equal(read(names[1]).direction(2), 2 * torch.ones(4))


def test_everywhere_is_advised_where_it_helps(tmp_path: Path) -> None:
    vector = Vector.of({2: torch.ones(4)})
    for part, helps in ((Part(vector, "ablate"), False), (Part(vector, scope="response"), True)):
        with pytest.raises(CapabilityError) as refused:
            write(part, tmp_path / "v.gguf")
        assert ("--everywhere" in refused.value.do) == helps


def test_a_direction_that_would_vanish_is_refused(tmp_path: Path) -> None:
    tiny = Vector.of({2: torch.full((4,), 1e-60, dtype=torch.float64)})
    with pytest.raises(CapabilityError, match="rounds to 0"):
        write(tiny, tmp_path / "v.gguf")
    write(1e30 * tiny, tmp_path / "v.gguf")
    assert read(tmp_path / "v.gguf").norm() == pytest.approx(2e-30)
    write(0 * tiny, tmp_path / "v.gguf")
    assert read(tmp_path / "v.gguf").norm() == 0


def test_the_page_lists_every_format_that_the_room_shows() -> None:
    page = (ROOT / "docs/howto/exchange.md").read_text()
    face = (ROOT / "steer/exchange/__init__.py").read_text()
    ours = [name for name in FORMATS if f"    _{name.replace('-', '_')},\n" in face]
    assert len(ours) >= 10
    assert [name for name in ours if f"| `{name}` |" not in page] == []
