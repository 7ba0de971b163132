"""`steer demo --toy` with few pairs and questions: what it prints and what it writes."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import steer as library
from steer.demo.data import DOMAINS
from steer.demo.smollm2 import OVERRIDE
from tests.cli.run import steer

SMALL = ("--pairs", "12", "--questions", "4")
_FOUND: dict[str, Any] = {}


@pytest.fixture
def studied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the first command measured for those after it."""
    import steer.demo.study as module

    measure: Callable[..., Any] = module.study

    def study(*args: Any, **options: Any) -> Any:
        if "toy" not in _FOUND:
            _FOUND["toy"] = measure(*args, **options)
        return _FOUND["toy"]

    monkeypatch.setattr(module, "study", study)


def demo(folder: Path) -> str:
    """Run the command and return what it prints, in one line."""
    status, out, err = steer("demo", "--toy", "-o", str(folder), *SMALL)
    assert status == 0, err
    return " ".join(out.split())


@pytest.mark.slow
@pytest.mark.usefixtures("studied_once")
def test_demo_prints_every_table_and_writes_vectors_and_a_picture(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    printed = demo(folder)
    for domain in DOMAINS:
        assert f"{domain}: 4 new questions at each setting" in printed
        assert f"{domain} moves: " in printed
        vector = library.Vector.load(folder / f"{domain}.safetensors")
        assert vector.provenance.domain == domain
        assert vector.provenance.pairs == 12
        assert vector.provenance.method == "palrs"
        assert vector.provenance.model is not None
        assert vector.provenance.model.model_id == "steer-demo"
        assert vector.tuning is not None
        assert vector.gate is not None
        assert sorted(vector.gate.domains) == sorted(DOMAINS)
    assert "One batch, a setting for each row" in printed
    assert re.search(r"The gate routes \d+% of held-out questions rightly", printed)
    assert "This model is a toy" in printed
    assert (folder / "dose.png").read_bytes().startswith(b"\x89PNG")
    for path in sorted(folder.iterdir()):
        assert f"saved {path}" in printed


@pytest.mark.slow
@pytest.mark.usefixtures("studied_once")
@pytest.mark.parametrize("columns", [80, 200])
def test_demo_fits_the_terminal_and_no_number_is_cut(tmp_path: Path, columns: int) -> None:
    status, out, err = steer("demo", "--toy", "-o", str(tmp_path), *SMALL, columns=columns)
    assert status == 0, err
    printed = [line for line in out.splitlines() if not line.startswith("saved")]
    assert max(map(len, printed)) <= columns
    assert "…" not in out
    bars = [line for line in printed if "█" in line]
    assert len(bars) >= 2 * len(DOMAINS)
    assert all(re.match(r"│ (knob|prompted|random)", line) for line in bars)


@pytest.mark.slow
@pytest.mark.usefixtures("studied_once")
def test_demo_without_matplotlib_says_how_to_get_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "steer.view._picture", None)
    printed = demo(tmp_path)
    assert "pip install 'residual-steer[plot]'" in printed
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"{domain}.safetensors" for domain in sorted(DOMAINS)
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("studied_once")
def test_the_toy_runs_where_the_model_cannot_be_had_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is a file, so nothing can be downloaded into it."""
    blocked = tmp_path / "cache"
    blocked.write_text("")
    monkeypatch.delenv(OVERRIDE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    status, out, err = steer("demo", "-o", str(tmp_path / "out"), *SMALL)
    assert status == 0, err
    assert re.match(r"The toy model runs, since smollm2-135m-instruct-q4_1 cannot be had: .", out)
    assert "medical: 4 new questions at each setting" in out
    assert "This model is a toy" in out
