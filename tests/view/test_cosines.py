"""Cosines of views are those of the algebra."""

import math

import pytest
import torch

import steer
from steer import view
from steer.algebra import Dense, Direction, LowRank
from steer.errors import AlgebraError, RecordingError
from tests.view.setting import everywhere, weights


def drawn(seed: int, layers: tuple[int, ...] = (1, 2)) -> steer.Vector:
    g = torch.Generator().manual_seed(seed)
    low = LowRank(torch.randn(5, 2, generator=g), torch.randn(2, 4, generator=g))
    terms: dict[steer.Residual | steer.Weight, Direction | LowRank | Dense] = {
        steer.Residual(k): Direction(torch.randn(6, generator=g)) for k in layers
    }
    return steer.Vector({**terms, steer.Weight("a.weight"): low})


def test_each_part_has_the_cosine_of_the_algebra() -> None:
    vectors = {"u": drawn(0), "v": drawn(1), "w": drawn(2)}
    found = view.cosines(vectors)
    for i, a in enumerate(vectors.values()):
        for j, b in enumerate(vectors.values()):
            assert found.residual is not None
            assert found.weight is not None
            assert float(found.residual[i, j]) == pytest.approx(a.residual.cosine(b.residual))
            assert float(found.weight[i, j]) == pytest.approx(a.weight.cosine(b.weight), abs=1e-6)
            assert float(found.by_layer[1, i, j]) == pytest.approx(a[2].cosine(b[2]))
    rows = {(r["part"], r["first"], r["second"]): r["cosine"] for r in found.rows}
    assert rows["layer 1", "u", "w"] == float(found.by_layer[0, 0, 2])
    assert len(rows) == 4 * 3


def test_only_shared_sites_count() -> None:
    u, w = drawn(0), drawn(1, layers=(2, 3))
    found = view.cosines({"u": u, "w": w})
    assert found.layers == (2,)
    assert found.residual is not None
    assert float(found.residual[0, 1]) == pytest.approx(u[2].cosine(w[2]))
    alone = view.cosines({"u": u.residual, "w": w.residual})
    assert alone.weight is None
    assert set(alone.panels) == {"residual"}


def test_a_zero_vector_has_no_cosine() -> None:
    found = view.cosines({"u": drawn(0).residual, "zero": 0 * drawn(0).residual})
    assert found.residual is not None
    assert math.isnan(float(found.residual[0, 1]))
    assert float(found.residual[0, 0]) == 1.0


def test_vectors_without_a_shared_site_cannot_be_compared() -> None:
    with pytest.raises(AlgebraError, match="nothing to compare"):
        view.cosines({"u": everywhere()[1], "w": everywhere()[2]})
    with pytest.raises(AlgebraError, match="nothing to compare"):
        view.cosines({"u": everywhere()})


def test_cosines_between_layers() -> None:
    found = view.layer_cosines(everywhere()[1:5])
    assert found.layers == (1, 2, 3, 4)
    u, w = everywhere().direction(4).double(), everywhere().direction(2).double()
    assert float(found.values[3, 1]) == pytest.approx(float(u @ w / u.norm() / w.norm()))
    assert found.rows[1]["2"] == pytest.approx(1.0)
    torch.testing.assert_close(found.values, found.values.T)
    assert view.layer_cosines(0 * everywhere()).values.isnan().all()
    with pytest.raises(RecordingError, match="no direction"):
        view.layer_cosines(weights())
