"""Behind a gate a prompt sees its own domain's coefficient, and each value of it is scored once."""

import pytest
import torch

from steer.measure import Scorer, likelihoods, sweep
from steer.measure import _likelihood as likelihood
from tests.conformance.cases import gate, knobs
from tests.measure.setting import ASKED, GIVEN, check_equal, model, one_by_one, pairs

GRID = (-1.0, -0.5, 0.0, 0.5, 1.0)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of settings in each call of the kernel."""
    counts: list[int] = []
    kernel = likelihood.branched_scores

    def counting(architecture, composition, settings, batch, **options):
        counts.append(len(settings))
        return kernel(architecture, composition, settings, batch, **options)

    monkeypatch.setattr(likelihood, "branched_scores", counting)
    return counts


def test_a_sweep_shares_over_its_groups(scored: list[int]) -> None:
    found = sweep(model(), knobs(gate=gate()), pairs(), GRID, progress=False)
    patterns = len(scored)
    assert len(found) == 125
    assert patterns <= 3
    assert scored == [5] * patterns


def test_a_scorer_knows_what_it_scored_before(scored: list[int]) -> None:
    composed = knobs(gate=gate())
    rows = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.5], [0.0, 1.0, -0.5]])
    asked = Scorer(model(), composed, ASKED, GIVEN)
    first, before = asked(rows[:2]), sum(scored)
    again = asked(rows[:2])
    assert sum(scored) == before
    assert all(torch.equal(a, b) for a, b in zip(first.logprobs, again.logprobs, strict=True))
    whole = asked(rows)
    check_equal(whole.logprobs, one_by_one(model(), composed, rows))
    check_equal(
        likelihoods(model(), composed, rows, ASKED, GIVEN).logprobs,
        one_by_one(model(), composed, rows),
    )


def test_with_all_settings_foreseen_the_order_of_asking_changes_no_bit() -> None:
    composed = knobs(gate=gate())
    rows = torch.cartesian_prod(*[torch.tensor(GRID)] * 3)
    one, other = (Scorer(model(), composed, ASKED, GIVEN, foreseen=rows) for _ in range(2))
    first = torch.cat(
        [torch.cat([t.flatten() for t in one(part).logprobs]) for part in rows[60:80].split(3)]
    )
    other(rows[:30])
    second = torch.cat(
        [torch.cat([t.flatten() for t in other(part).logprobs]) for part in rows[60:80].split(3)]
    )
    assert torch.equal(first, second)


def test_without_a_gate_every_setting_is_scored(scored: list[int]) -> None:
    sweep(model(), knobs(), pairs(), GRID, progress=False)
    assert sum(scored) == 125
