"""The exploring stages of the study leave test pairs alone, and derive what they say they do."""

import pytest
import torch

from notebooks.study.behaviours import behaviour
from notebooks.study.final import NEUTRAL
from notebooks.study.matters.fisher import PROMPTS, preconditioned
from notebooks.study.matters.measured import Explored
from notebooks.study.matters.table import rank_correlation, runs, within_layers
from steer.measure import NEUTRAL_PROMPTS


@pytest.mark.parametrize("name", ["cheerful", "terse", "formal", "avoidance"])
def test_nothing_of_the_test_is_explored(name: str) -> None:
    what = Explored.of(behaviour(name, None))
    tested = {pair.prompt for pair in what.own.test} | set(what.own.asked)
    explored = {pair.prompt for part in (what.train, what.unseen) for pair in part}
    assert what.unseen
    assert not tested & (explored | set(what.asked))
    assert not {pair.prompt for pair in what.train} & {pair.prompt for pair in what.unseen}


def test_the_neutral_texts_that_fit_calibrate_and_report_are_different() -> None:
    every = [*PROMPTS, *NEUTRAL, *NEUTRAL_PROMPTS]
    assert len(every) == len({prompt.lower() for prompt in every})


def test_a_run_is_one_mark_four_times() -> None:
    assert runs(["🌱🌱🌱🌱 grow", "! ! ! !", "well...", "a 🎉 and a 🎉 and 🎉 🌱 🎉"]) == 0.5


def test_preconditioning_goes_from_the_gradient_to_the_inverse_form() -> None:
    form, g = torch.diag(torch.tensor([1.0, 4.0]).double()), torch.tensor([1.0, 1.0])
    assert torch.allclose(preconditioned(g, form, 1e-9), torch.tensor([1.0, 0.25]))
    damped = preconditioned(g, form, 1e9)
    assert torch.allclose(damped / damped.norm(), g / g.norm())


def test_correlation_within_layers_does_not_see_a_trend_over_layers() -> None:
    found = [
        {"layer": layer, "measures": {"m": 10 * layer + k}, "gains": [10 * layer - k]}
        for layer in (1, 2)
        for k in range(3)
    ]
    assert rank_correlation(found, "m") > 0.4
    assert within_layers(found, "m") == pytest.approx(-1)
