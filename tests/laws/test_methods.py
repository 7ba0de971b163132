"""What every registered extraction method owes, and a method from outside the package."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from steer.algebra import LayerStats, Vector
from steer.errors import RecordingError
from steer.extract import Activations, get_method, mean_difference, method, record
from steer.extract._mean_difference import no_difference, vector_of
from steer.extract._registry import _METHODS, keep_for
from tests.extract.reference import some_pairs, tiny
from tests.laws.methods import AT, LAWS, LAYERS, it_gives_the_same_again_and_after_a_file, recording
from tests.registered import METHODS

Law = Callable[[str], None]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", METHODS)
def test_every_registered_method_keeps_the_law(name: str, law: Law) -> None:
    law(name)


@pytest.mark.parametrize("name", METHODS)
def test_every_registered_method_gives_the_same_again(name: str, tmp_path: Path) -> None:
    it_gives_the_same_again_and_after_a_file(name, tmp_path)


@pytest.mark.parametrize("name", METHODS)
def test_every_registered_method_steers(name: str) -> None:
    lm = tiny()
    found = record(lm, some_pairs(8, (None,)), "response_mean", keep=keep_for(name), progress=False)
    vector = get_method(name)(found)
    plain = lm.logits(["Is it safe?"], ["No."])[0]
    with lm.steered(vector, 2.0):
        assert not torch.allclose(lm.logits(["Is it safe?"], ["No."])[0], plain, atol=1e-3)
    with lm.steered(vector, 0.0):
        assert torch.equal(lm.logits(["Is it safe?"], ["No."])[0], plain)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> str:
    """A logistic regression on single pairs, registered for one test."""
    monkeypatch.setattr(_METHODS, "_values", dict(_METHODS._values))

    @method("separating", keep="pairs")
    def separating(
        activations: Activations, *, domain: str | None = None, position: str | None = None
    ) -> Vector:
        domain, position = activations.domain(domain), activations.position(position)
        differences = activations.pairs(domain, position).difference
        if not differences.any():
            raise no_difference([position])
        directions = {}
        for row, layer in enumerate(activations.layers):
            d = differences[:, row]
            w = torch.zeros(d.shape[1], dtype=torch.float64)
            for _ in range(200):  # ascend Σ log σ(⟨d, w⟩) − ‖w‖²/2
                w = w + 0.05 * (torch.sigmoid(-(d @ w)) @ d - w)
            directions[layer] = w
        norms = activations.of(domain, position).norm.tolist()
        stats = {layer: LayerStats(n) for layer, n in zip(activations.layers, norms, strict=True)}
        said: dict[str, object] = {"position": position}
        return vector_of(activations, "separating", domain, position, directions, said, stats)

    return "separating"


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_method_from_outside_is_held_to_the_laws(outside: str, law: Law) -> None:
    law(outside)


def test_a_method_from_outside_gives_the_same_again(outside: str, tmp_path: Path) -> None:
    it_gives_the_same_again_and_after_a_file(outside, tmp_path)


def test_the_principal_difference_is_the_axis_of_largest_differences() -> None:
    activations = recording()
    vector = get_method("principal_difference")(activations)
    kept = activations.pairs().difference
    plain = mean_difference(activations)
    for row, layer in enumerate(LAYERS):
        d = kept[:, row]
        u = vector.direction(layer).double()
        best = torch.linalg.eigvalsh(d.T @ d)[-1]
        assert float((d @ u).square().sum()) == pytest.approx(float(best * u.square().sum()))
        assert float(u.norm()) == pytest.approx(float(plain.direction(layer).norm()), rel=1e-6)


def test_the_sides_of_a_pair_do_not_turn_the_principal_axis() -> None:
    activations = recording()
    key = (None, AT)
    pairs = activations.pairs()
    flip = torch.ones(len(pairs), 1, 1)
    flip[::2] = -1
    middle = (pairs.chosen + pairs.rejected) / 2
    half = flip * (pairs.chosen - pairs.rejected) / 2
    turned = replace(activations, kept={key: type(pairs)(middle + half, middle - half)})
    one = get_method("principal_difference")(activations)
    other = get_method("principal_difference")(turned)
    for layer in LAYERS:
        cosine = torch.cosine_similarity(one.direction(layer), other.direction(layer), dim=0)
        assert abs(float(cosine)) == pytest.approx(1.0, rel=1e-5)


def test_what_a_method_needs_is_told_by_name() -> None:
    assert keep_for("mean_difference") == "means"
    assert keep_for("principal_difference") == "pairs"
    with pytest.raises(RecordingError, match="unknown extraction method"):
        keep_for("nothing")
