"""Energies sum to the whole, and singular values are those of the product."""

import pytest
import torch

import steer
from steer import view
from steer.algebra import Dense, Direction, LowRank
from steer.algebra._term import dense
from steer.errors import AlgebraError
from tests.view.setting import palrs, weights


def test_the_energies_of_all_modules_sum_to_that_of_the_vector() -> None:
    found = view.spectrum(weights())
    assert found.energy == pytest.approx(weights().norm() ** 2, rel=1e-9)
    assert len(found.modules) == len(weights())
    for key in ("layer", "kind"):
        assert sum(found.energy_by(key).values()) == pytest.approx(found.energy, rel=1e-9)
    assert sum(row["share of energy"] for row in found.rows) == pytest.approx(1.0)


def test_leaving_a_layer_out_takes_its_energy() -> None:
    found = view.spectrum(weights())
    rest = steer.Vector({s: t for s, t in weights().terms.items() if ".layers.2." not in str(s)})
    lost = weights().norm() ** 2 - rest.norm() ** 2
    assert found.energy_by("layer")[2] == pytest.approx(lost, rel=1e-6)


def test_singular_values_are_those_of_the_product() -> None:
    site, term = next(iter(weights().terms.items()))
    found = view.spectrum(steer.Vector({site: term})).modules[0]
    whole = torch.linalg.svdvals(dense(term).double())
    torch.testing.assert_close(found.singular_values, whole[: len(found.singular_values)])
    assert float(whole[len(found.singular_values) :].abs().max()) < 1e-6
    assert float(found.singular_values.square().sum()) == pytest.approx(found.energy)


def test_a_truncated_vector_keeps_the_energy_that_the_spectrum_says() -> None:
    site = next(iter(weights().terms))
    one = weights()[site]
    module = view.spectrum(one).modules[0]
    rank = module.rank_for(0.9)
    assert rank is not None
    kept, less = one.truncate(rank).norm() ** 2, one.truncate(rank - 1).norm() ** 2
    assert kept / module.energy >= 0.9 > less / module.energy


def test_dense_terms_biases_and_names_without_a_layer() -> None:
    g = torch.Generator().manual_seed(0)
    B, A = torch.randn(5, 2, generator=g), torch.randn(2, 4, generator=g)
    vector = steer.Vector(
        {
            steer.Weight("h.7.mlp.fc.weight"): LowRank(B, A),
            steer.Weight("h.8.mlp.fc.weight"): Dense(B @ A),
            steer.Weight("h.8.mlp.fc.bias"): Dense(torch.tensor([3.0, 4.0])),
            steer.Weight("lm_head.weight"): Dense(torch.zeros(2, 2)),
            steer.Residual(1): Direction(torch.ones(3)),
        }
    )
    found = {m.name: m for m in view.spectrum(vector).modules}
    low, full = found["h.7.mlp.fc.weight"], found["h.8.mlp.fc.weight"]
    torch.testing.assert_close(low.singular_values, full.singular_values[:2], rtol=1e-5, atol=1e-6)
    assert (low.layer, low.kind, low.shape) == (7, "mlp.fc", (5, 4))
    s = low.singular_values
    assert low.stable_rank == pytest.approx(float(s.square().sum() / s[0] ** 2))
    bias = found["h.8.mlp.fc.bias"]
    assert (bias.energy, bias.kind, bias.rank_for(0.9)) == (25.0, "mlp.fc.bias", None)
    assert (found["lm_head.weight"].layer, found["lm_head.weight"].kind) == (None, "lm_head")
    assert found["lm_head.weight"].rank_for(0.9) is None


def test_a_residual_vector_has_no_spectrum() -> None:
    with pytest.raises(AlgebraError, match="no spectrum"):
        view.spectrum(palrs())
