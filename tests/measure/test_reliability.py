"""Reliability against computations pair by pair, and on vectors that are planted or noise."""

import math

import pytest
import torch

import steer
from steer.errors import ArgumentError, RecordingError, SelectionError
from steer.measure import reliability
from steer.measure._reliability import AMONG, D_PRIME, ERROR, SPLIT_HALF, WEIGHTED, _at_layer
from tests.tiny import tiny_model, tiny_tokenizer

WORDS = [
    "sea",
    "boat",
    "wind",
    "water",
    "bond",
    "price",
    "dose",
    "court",
    "rate",
    "drug",
    "party",
    "claim",
]


@pytest.fixture(scope="module")
def lm():
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.fixture(scope="module")
def pairs():
    return steer.Pairs.of(
        steer.Pair(f"tell me of the {word}", f"the {word} is good", f"no {word} {word}")
        for word in " ".join(WORDS).split()
    )


@pytest.fixture(scope="module")
def found(lm, pairs):
    return reliability(lm, pairs, layers=[1, 3])


def means(lm, pairs, side, layer):
    """Mean over the response of each pair, read token by token."""
    texts = [getattr(pair, side) for pair in pairs]
    prompts = [pair.prompt for pair in pairs]
    streams = lm.activations(prompts, texts, layers=[layer])
    lengths = [len(row) for row in lm.logprobs(prompts, texts)]
    return torch.stack(
        [h[0, -n:].double().mean(dim=0) for h, n in zip(streams, lengths, strict=True)]
    )


def test_how_many_pairs_an_interval_needs_is_as_it_says(lm, pairs):
    needed = {AMONG: 3, SPLIT_HALF: 4, D_PRIME: 6}
    for n in range(2, 8):
        at = reliability(lm, pairs[:n], layers=[1], progress=False).at(1)
        for name, least in needed.items():
            assert math.isnan(at[name].interval[0]) == (n < least), (n, name)
        assert math.isnan(at[D_PRIME].value) == (n < 4)


def test_every_measure_is_what_it_says(lm, pairs, found):
    chosen, rejected = (means(lm, pairs, side, 3) for side in ("chosen", "rejected"))
    d = chosen - rejected
    even, odd = d[::2].mean(dim=0), d[1::2].mean(dim=0)
    measures = found.at(3)
    cosine = torch.nn.functional.cosine_similarity
    assert measures[SPLIT_HALF].value == pytest.approx(float(cosine(even, odd, dim=0)), abs=1e-4)
    unit = d / d.norm(dim=1, keepdim=True)
    among = [float(unit[i] @ unit[j]) for i in range(12) for j in range(12) if i != j]
    assert measures[AMONG].value == pytest.approx(sum(among) / len(among), abs=1e-4)
    separations = []
    for v, half in ((even, 1), (odd, 0)):
        up, down = chosen[half::2] @ v, rejected[half::2] @ v
        separations.append((up.mean() - down.mean()) / ((up.var() + down.var()) / 2).sqrt())
    assert measures[D_PRIME].value == pytest.approx(float(sum(separations) / 2), rel=1e-3)
    error = (d.std(dim=0) / math.sqrt(12)).norm() / d.mean(dim=0).norm()
    assert measures[ERROR].value == pytest.approx(float(error), rel=1e-3)


def test_the_intervals_are_those_of_leaving_pairs_out(lm, pairs, found):
    """Each pair left out keeps the others in their halves."""
    chosen, rejected = (means(lm, pairs, side, 3) for side in ("chosen", "rejected"))
    d = chosen - rejected
    left = []
    for out in range(12):
        even, odd = (
            torch.stack([d[k] for k in range(start, 12, 2) if k != out]).mean(dim=0)
            for start in (0, 1)
        )
        left.append(torch.nn.functional.cosine_similarity(even, odd, dim=0))
    values = torch.stack(left)
    error = float((11 / 12 * (values - values.mean()).square().sum()).sqrt())
    estimate = found.at(3)[SPLIT_HALF]
    assert estimate.value - estimate.interval[0] == pytest.approx(2.20099 * error, rel=1e-3)
    assert estimate.interval[1] <= 1.0
    cosines = torch.nn.functional.normalize(d, dim=1)
    cosines = cosines @ cosines.T - torch.eye(12)
    kept = [[k for k in range(12) if k != out] for out in range(12)]
    values = torch.stack([cosines[k][:, k].sum() / 110 for k in kept])
    error = float((11 / 12 * (values - values.mean()).square().sum()).sqrt())
    among = found.at(3)[AMONG]
    assert among.value - among.interval[0] == pytest.approx(2.20099 * error, rel=1e-3)


def test_it_agrees_with_what_recording_knows(lm, pairs, found):
    activations = steer.record(lm, pairs, at="response_mean", layers=[1, 3], progress=False)
    recorded = reliability(activations)
    for layer in (1, 3):
        one, other = found.at(layer), recorded.at(layer)
        for name in (SPLIT_HALF, ERROR):
            assert one[name].value == pytest.approx(other[name].value, rel=1e-4)
            assert math.isnan(other[name].interval[0])
        assert D_PRIME not in other
    chosen, rejected = (means(lm, pairs, side, 1) for side in ("chosen", "rejected"))
    gram = (chosen - rejected) @ (chosen - rejected).T
    weighted = (gram.sum() - gram.trace()) / (11 * gram.trace())
    assert recorded.at(1)[WEIGHTED].value == pytest.approx(float(weighted), rel=1e-4)


def test_the_table_has_a_row_per_layer_and_measure(found):
    assert [(row["layer"], row["measure"]) for row in found.rows] == [
        (layer, name) for layer in (1, 3) for name in (SPLIT_HALF, AMONG, D_PRIME, ERROR)
    ]
    assert repr(found).startswith("Reliability of 12 pairs at response_mean")
    assert len(repr(found).splitlines()) == 4
    with pytest.raises(ArgumentError, match="layer is not one of"):
        found.at(2)


def test_a_planted_direction_is_told_from_noise():
    """In 200 dimensions d′ on the same pairs would be large for noise too; across halves not."""
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(40, 200, generator=generator).double() for _ in range(2)]
    nothing = _at_layer(*noise)
    assert nothing[D_PRIME].interval[0] < 0 < nothing[D_PRIME].interval[1]
    assert nothing[SPLIT_HALF].interval[0] < 0 < nothing[SPLIT_HALF].interval[1]
    assert abs(nothing[AMONG].value) < 0.05
    planted = _at_layer(noise[0] + 6 * torch.eye(200)[0], noise[1])
    assert planted[D_PRIME].interval[0] > 2
    assert planted[SPLIT_HALF].interval[0] > 0.5
    assert planted[AMONG].value > nothing[AMONG].value


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_few_pairs_have_no_interval_and_do_not_fail(lm, pairs, n):
    measures = reliability(lm, pairs[:n], layers=[1]).at(1)
    assert math.isnan(measures[D_PRIME].interval[0])
    assert math.isnan(measures[SPLIT_HALF].value) == (n == 1)
    assert math.isnan(measures[AMONG].value) == (n == 1)


def test_one_position_must_be_named(lm, pairs):
    with pytest.raises(RecordingError, match="more than one position"):
        reliability(lm, pairs[:2], at=["response_mean", "response_last"])
    both = ["response_mean", "response_last"]
    assert reliability(lm, pairs[:2], at=both, position="response_last").position == both[1]


def test_a_recording_that_kept_its_pairs_is_not_read_again(lm, pairs, found):
    kept = steer.record(lm, pairs, "response_mean", layers=[1, 3], keep="pairs", progress=False)
    again = reliability(kept)
    assert again.layers == found.layers
    for layer in again.layers:
        for name, estimate in found.at(layer).items():
            assert again.at(layer)[name].value == pytest.approx(estimate.value, rel=1e-4)
    assert reliability(kept, layers=[3]).layers == (3,)
    with pytest.raises(steer.errors.RecordingError, match="were not recorded"):
        reliability(kept, layers=[2])
    with pytest.raises(SelectionError, match="a recording alone"):
        reliability(kept, pairs)
