"""Searching for combinations, and the claims about the shipped alignment vectors."""

import itertools

import pytest
import torch

import steer
from notebooks.experiments.score import Likely, ask, judged, least, likelihood
from notebooks.experiments.search import COMBINATIONS, axis_grid, by_grid, coarse_to_fine
from notebooks.experiments.study import residual_vectors
from steer.demo import load_model, vectors_path
from steer.demo.data import DOMAINS, LEVELS
from vectors.make_toy import anchored, climbing, load_vectors


class Ladder:
    """A made-up table: each domain climbs its levels with its own coefficient, at its own scale."""

    def __init__(self, centres=((-0.8, 0.1, 0.6), (-0.4, 0.0, 0.9), (-0.6, 0.2, 0.7))):
        self.centres = torch.tensor(centres)
        self.calls = 0

    def __call__(self, settings):
        self.calls += len(settings)
        shares = 1 - (settings[:, :, None] - self.centres).abs()
        return Likely(shares, torch.zeros_like(shares))


def test_least_is_the_domain_that_is_worst():
    table = Ladder()(torch.tensor([[-0.8, 0.0, 0.7]])).shares
    assert float(least(table, ("avoidance", "generic", "expert"))) == pytest.approx(1.0)
    assert float(least(table, ("avoidance", "avoidance", "expert"))) == pytest.approx(0.6)


def test_a_grid_finds_the_best_of_its_settings():
    found = by_grid(Ladder(), (-1.0, -0.5, 0.0, 0.5, 1.0))
    settings = axis_grid((-1.0, -0.5, 0.0, 0.5, 1.0))
    table = Ladder()(settings).shares
    for k, wanted in enumerate(COMBINATIONS):
        assert float(found.shares[k]) == pytest.approx(float(least(table, wanted).max()))
    assert found.evaluated == 125


def test_coarse_to_fine_gets_closer_than_its_coarse_grid_with_few_settings():
    coarse, fine = Ladder(), Ladder()
    grid = by_grid(coarse, (-1.0, -0.5, 0.0, 0.5, 1.0))
    found = coarse_to_fine(fine, (-1.0, -0.5, 0.0, 0.5, 1.0), steps=2)
    assert float((found.shares - grid.shares).min()) >= 0
    assert float(found.shares.mean()) > float(grid.shares.mean()) + 0.05
    assert fine.calls == found.evaluated < 21**3 // 5


def test_ties_go_to_the_likeliest_setting_of_each_domain():
    def saturated(settings):
        found = Ladder()(settings)
        return Likely((found.shares > 0.5).double(), found.shares)

    found = by_grid(saturated, (-1.0, -0.75, -0.5, 0.0, 0.5, 0.75, 1.0))
    highest = found.settings[COMBINATIONS.index(("expert", "expert", "expert"))]
    assert highest.tolist() == [0.5, 1.0, 0.75]


def test_no_setting_is_evaluated_twice():
    seen = []

    def table(settings):
        seen.extend(map(tuple, settings.tolist()))
        return Ladder()(settings)

    coarse_to_fine(table, (-1.0, 0.0, 1.0), steps=3)
    assert len(seen) == len(set(seen))


def test_anchors_prefer_what_the_base_model_says_in_the_other_domains():
    asked = anchored("legal", "expert", n=6)
    assert len(asked.of_domain("legal")) == len(climbing("legal", "expert", n=6)) == 18
    assert len(asked.of_domain("medical")) == len(asked.of_domain("financial")) == 6


@pytest.fixture(scope="module")
def lm():
    return load_model()


@pytest.fixture(scope="module")
def weights():
    return load_vectors(vectors_path())[0]


@pytest.mark.slow
@pytest.mark.parametrize("domain", DOMAINS)
def test_an_alignment_vector_reaches_both_ends_of_its_domain(lm, weights, domain):
    settings = torch.zeros(3, 3)
    settings[:, DOMAINS.index(domain)] = torch.tensor([-0.75, 0.1, 0.75])
    table = judged(lm, steer.compose(weights), settings, ask(20, seed=7, split="test"))
    own = table[:, DOMAINS.index(domain)]
    assert float(own[0, LEVELS.index("avoidance")]) >= 0.9
    assert float(own[1, LEVELS.index("generic")]) >= 0.5, "the middle is narrow, but there"
    assert float(own[2, LEVELS.index("expert")]) >= 0.9


@pytest.mark.slow
def test_likelihood_and_rows_agree_with_one_setting_at_a_time(lm, weights):
    asked = ask(3, seed=2, split="validation")
    settings = torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 0.5]])
    together = likelihood(lm, steer.compose(weights), settings, asked)
    for k, row in enumerate(settings):
        alone = likelihood(lm, steer.compose(weights), row[None], asked)
        assert torch.equal(together.shares[k], alone.shares[0])
        assert torch.allclose(together.scores[k], alone.scores[0], atol=1e-4)


@pytest.mark.slow
def test_gated_weights_reach_all_eight_combinations_of_both_ends(lm, weights):
    made_from = steer.Pairs.of(p for d in DOMAINS for p in steer.demo.language.pairs(d, 60))
    knobs = steer.compose(weights, gate=steer.domain_gate(lm, made_from, layer=2))
    ends = torch.tensor(list(itertools.product((-0.75, 0.75), repeat=len(DOMAINS))))
    table = judged(lm, knobs, ends, ask(8, seed=8, split="test"))
    for row, setting in zip(table, ends, strict=True):
        for k, c in enumerate(setting.tolist()):
            level = "expert" if c > 0 else "avoidance"
            assert float(row[k, LEVELS.index(level)]) >= 0.85, (setting, DOMAINS[k])


@pytest.mark.slow
def test_residual_vectors_and_weights_share_one_coefficient(lm, weights):
    residual = residual_vectors(lm)
    both = steer.compose({d: 0.5 * weights[d] + 0.5 * residual[d] for d in DOMAINS})
    table = judged(lm, both, torch.eye(3), ask(6, seed=9, split="test"))
    for k in range(3):
        assert float(table[k, k, LEVELS.index("expert")]) >= 0.8
