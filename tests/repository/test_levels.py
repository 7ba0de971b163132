"""Three domains at three levels: the data, the scores, the search and what counts as reached."""

import json

import pytest
import torch

import steer
from notebooks.study.levels.data import DOMAINS, LEVELS
from notebooks.study.levels.final import LATIN
from notebooks.study.levels.likelihood import level_scores
from notebooks.study.levels.scores import COMBINATIONS, reached, share
from notebooks.study.levels.search import best_of, search
from steer.demo import load_model
from steer.measure import Share
from tests.repository.blocks import ROOT

ANSWERS = json.loads((ROOT / "notebooks/study/levels/answers.json").read_text(encoding="utf-8"))


def test_written_answers_occur_once_and_are_alike_in_length() -> None:
    texts = [text for own in ANSWERS.values() for level in own.values() for text in level]
    assert len(texts) == len(set(texts)) == len(DOMAINS) * 2 * 16
    means = [sum(map(len, level)) / 16 for own in ANSWERS.values() for level in own.values()]
    assert max(means) < 1.1 * min(means)


@pytest.mark.parametrize("scale", [0.0, 0.7])
def test_scores_with_shared_prompts_are_those_of_level_preference(scale: float) -> None:
    model = load_model()
    part = steer.Answers(
        ["I have a sore throat. What should I do?", "My head hurts.", "Can I eat fish?"],
        {
            "avoidance": ["please ask a doctor.", "I can not say that.", "ask a nurse."],
            "generic": ["rest helps.", "drink some water and rest.", "it depends."],
            "expert": ["take one tablet a day.", "it is a cold.", "yes, fish is good for you."],
        },
    )
    vector = steer.Vector.of({2: torch.linspace(-1, 1, model.d_model)})
    with model.steered(vector, scale):
        found = level_scores(model, part)
        wanted = steer.level_preference(model, part.prompts, part.answers).scores
    torch.testing.assert_close(found, wanted.double(), rtol=0, atol=1e-4)


def test_a_level_is_reached_above_one_half_and_above_the_start() -> None:
    assert reached(Share(16, 30), Share(3, 30))
    assert not reached(Share(15, 30), Share(3, 30))
    assert not reached(Share(16, 30), Share(14, 30))  # its lower bound is 0.36
    assert reached(Share(20, 30), Share(20, 30))
    assert not reached(Share(19, 30), Share(20, 30))


def test_each_level_occurs_three_times_in_each_domain_of_the_square() -> None:
    for domain in range(len(DOMAINS)):
        assert sorted(wanted[domain] for wanted in LATIN) == sorted(LEVELS * 3)


@pytest.mark.parametrize("leak", [0.0, 0.05])
def test_the_search_finds_every_combination_that_separable_knobs_reach(leak: float) -> None:
    noise = torch.Generator().manual_seed(0)
    base = {
        d: torch.tensor([-3.4, -3.4, -2.6]) + 0.2 * torch.randn(10, 3, generator=noise)
        for d in DOMAINS
    }
    push = {"avoidance": torch.tensor([2.0, 0.0, -1.0]), "generic": torch.tensor([0.0, 2.0, -1.0])}
    knobs = tuple(f"{d} {level}" for level in push for d in DOMAINS)
    asked = []

    def measure(settings):
        for setting in settings:
            asked.append(setting)
            yield {
                d: base[d]
                + sum(
                    (c if name.startswith(d) else leak * c) * push[name.split()[1]]
                    for name, c in setting.items()
                )
                for d in DOMAINS
            }

    known: dict = {}
    search(knobs, known, measure)
    start = known[(0.0,) * 6]
    assert all(best_of(start, known, wanted)[1] for wanted in COMBINATIONS)
    assert len(asked) < 13 + 2 * 27
    for wanted in COMBINATIONS:
        setting = best_of(start, known, wanted)[0]
        for d, level in zip(DOMAINS, wanted, strict=True):
            assert share(known[setting][d], level).value > 0.5
