"""Taking a difference needs a few tensors of memory, whatever the size of the models."""

import sys
from pathlib import Path

import pytest

from steer.algebra import Vector
from tests.alignment.memory import generate, measure, shapes

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="anonymous memory is counted by Linux alone"
)
_WIDTH, _LAYERS, _VOCAB = 512, 8, 16_000
_LARGEST = 4 * _WIDTH * _VOCAB  # bytes of the largest tensor in float32
_OTHER = 20_000_000  # bytes of headers, blocks and Python's own


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    sizes = [generate(folder / name, _WIDTH, _LAYERS, _VOCAB, len(name)) for name in ("a", "bb")]
    assert sum(sizes) > 5 * _LARGEST  # twice what may be in memory
    return folder / "a", folder / "bb"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [None, 4])
def test_memory_stays_at_two_of_the_largest_tensors(
    rank: int | None, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    peak, _ = measure(*folders, out, rank)
    assert peak < 2 * _LARGEST + _OTHER
    if rank is not None:
        assert len(Vector.load(out)) == len(shapes(_WIDTH, _LAYERS, _VOCAB))
