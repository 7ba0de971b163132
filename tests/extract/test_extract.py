import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from steer.algebra import Vector
from steer.errors import ArgumentError, RecordingError
from steer.extract import (
    Activations,
    get_method,
    mean_difference,
    method,
    methods,
    palrs,
    record,
)
from steer.extract._moments import Moments
from steer.extract._registry import _METHODS
from tests.extract.reference import off, some_pairs, textbook, tiny
from tests.registered import METHODS

LAYERS = (1, 2, 4, 7)
WIDTH = 5


def made(domains: tuple[str | None, ...] = (None,), positions: tuple[str, ...] = ("x", "y")) -> Any:
    """Return activations of random pairs whose means are known, without any model."""
    draw = torch.Generator().manual_seed(3)
    moments = {}
    for domain in domains:
        for position in positions:
            chosen, rejected = torch.randn(2, 9, 4, WIDTH, generator=draw, dtype=torch.float64)
            norm = torch.rand(9, 4, generator=draw, dtype=torch.float64) + 1
            moments[domain, position] = Moments.of(chosen + 1, rejected, norm, list(range(9)))
    prints = {domain: (f"print of {domain}",) for domain in domains}
    return Activations(moments, LAYERS, prints, None, "packed")


def best_by_hand(
    activations: Activations, positions: tuple[str, ...], layers: tuple[int, ...], by: str
) -> tuple[str, int]:
    """Return the position and layer of the best aligned difference, by trying all of them."""
    scores = {}
    for position in positions:
        found = activations.of(None, position)
        for layer in layers:
            r = found.difference[LAYERS.index(layer)]
            mu = found.mean_chosen[LAYERS.index(layer)]
            score = r @ mu if by == "dot" else torch.cosine_similarity(r, mu, dim=0)
            scores[position, layer] = float(score)
    return max(scores, key=scores.__getitem__)


@pytest.mark.parametrize("position", ["template[-1]", "response_mean"])
def test_mean_difference_equals_the_textbook(position: str) -> None:
    model, pairs = tiny(), some_pairs(8)
    activations = record(model, pairs, ["template", "response_mean"], progress=False)
    found = mean_difference(activations, domain="med", position=position)
    expected = textbook(model, pairs, "med", position)
    assert found.layers == (0, 1, 2, 3)
    for layer in found.layers:
        direction = found.direction(layer)
        assert direction.dtype == torch.float32
        assert off(direction.double(), expected.difference[layer]) < 1e-5
        stats = found.stats[layer]
        assert stats.residual_norm is not None
        assert math.isclose(stats.residual_norm, expected.norms[:, layer].mean(), rel_tol=1e-5)
        assert stats.standard_error is not None
        error = float(expected.standard_error[layer].norm())
        assert math.isclose(stats.standard_error, error, rel_tol=1e-5)
        assert stats.split_half_cosine is not None
        cosine = float(expected.split_half_cosine[layer])
        assert math.isclose(stats.split_half_cosine, cosine, abs_tol=1e-4)
    made_by = found.provenance
    assert (made_by.method, made_by.domain, made_by.pairs) == ("mean_difference", "med", 4)
    assert made_by.arguments["position"] == position
    assert made_by.pairs_fingerprint == pairs.of_domain("med").fingerprint
    assert made_by.model == model.info


def test_rescaled_directions_are_as_long_as_the_chosen_mean() -> None:
    activations = made()
    plain = mean_difference(activations, position="y")
    scaled = mean_difference(activations, position="y", rescale=True)
    for row, layer in enumerate(LAYERS):
        expected = float(activations.of(None, "y").mean_chosen[row].norm())
        assert math.isclose(float(scaled.direction(layer).norm()), expected, rel_tol=1e-5)
        cosine = torch.cosine_similarity(plain.direction(layer), scaled.direction(layer), dim=0)
        assert math.isclose(float(cosine), 1.0, rel_tol=1e-5)
        factor = expected / float(plain.direction(layer).norm())
        error, before = scaled.stats[layer].standard_error, plain.stats[layer].standard_error
        assert error is not None
        assert before is not None
        assert math.isclose(error, before * factor, rel_tol=1e-5)


def test_what_cannot_be_measured_is_none() -> None:
    one = torch.ones(1, 4, WIDTH)
    moments = Moments.of(2 * one, one, torch.ones(1, 4), [0])
    found = mean_difference(Activations({(None, "x"): moments}, LAYERS, {}, None, "packed"))
    assert found.stats[1].standard_error is None
    assert found.stats[1].split_half_cosine is None
    assert found.stats[1].residual_norm == 1.0


@pytest.mark.parametrize("by", ["cosine", "dot"])
def test_palrs_takes_the_best_aligned_position_and_layer(by: Any) -> None:
    activations = made()
    found = palrs(activations, layers=LAYERS, alignment=by)
    position, layer = best_by_hand(activations, ("x", "y"), LAYERS, by)
    assert found.layers == (layer,)
    assert found.provenance.arguments["position"] == position
    moments = activations.of(None, position)
    row = LAYERS.index(layer)
    r, mu = moments.difference[row], moments.mean_chosen[row]
    assert off(found.direction(layer).double(), r * mu.norm() / r.norm()) < 1e-6
    unscaled = palrs(activations, layers=LAYERS, alignment=by, rescale=False)
    assert off(unscaled.direction(layer).double(), r) < 1e-6


def test_cosine_and_dot_differ_in_their_choice() -> None:
    activations = made()
    assert best_by_hand(activations, ("x", "y"), LAYERS, "dot") != best_by_hand(
        activations, ("x", "y"), LAYERS, "cosine"
    ), "the two parametrised cases above would be one"


def test_palrs_stays_within_layers_and_positions() -> None:
    activations = made()
    for options, allowed in (
        ({"depth": (0.0, 0.5)}, (1, 2)),
        ({"depth": (0.5, 1)}, (4, 7)),
        ({"layers": range(1, 3)}, (1, 2)),
        ({"layers": (1, 7)}, (1, 7)),
    ):
        found = palrs(activations, positions=["y"], **options)  # type: ignore[arg-type]
        assert (found.provenance.arguments["position"], found.layers[0]) == best_by_hand(
            activations, ("y",), allowed, "cosine"
        )


@pytest.mark.parametrize("by", ["cosine", "dot"])
def test_palrs_reads_template_tokens_unless_other_positions_are_named(by: Any) -> None:
    names = ("template[-1]", "template[-2]", "template[-3]")
    first, _ = best_by_hand(made(positions=names), names, LAYERS, by)
    activations = made(positions=tuple("response_mean" if n == first else n for n in names))
    best = best_by_hand(activations, tuple(n for n in names if n != first), LAYERS, by)
    found = palrs(activations, layers=LAYERS, alignment=by)
    assert (found.provenance.arguments["position"], found.layers[0]) == best
    named = palrs(activations, positions=activations.positions, layers=LAYERS, alignment=by)
    assert named.provenance.arguments["position"] == "response_mean"


def test_palrs_reads_a_string_as_one_position() -> None:
    activations = record(tiny(), some_pairs(5, ("law",)), progress=False)
    known = palrs(activations, positions=["template[-1]"], layers=[2])
    found = palrs(activations, positions="template[-1]", layers=[2])
    assert found.provenance == known.provenance
    assert torch.equal(found.direction(2), known.direction(2))


def test_palrs_knows_the_depth_of_the_model() -> None:
    activations = made()
    info = tiny().info
    deep = replace(activations, model=replace(info, n_layers=40))
    with pytest.raises(RecordingError, match="of 40 blocks"):
        palrs(deep)
    assert palrs(deep, depth=(0.1, 0.8)).layers[0] in (4, 7)


def test_palrs_refuses_what_it_cannot_choose_from() -> None:
    activations = made()
    with pytest.raises(ArgumentError, match="alignment is not one of"):
        palrs(activations, alignment="norm")  # type: ignore[arg-type]
    with pytest.raises(RecordingError, match="no position"):
        palrs(activations, positions=[])
    with pytest.raises(RecordingError, match="no such position") as caught:
        palrs(activations, positions=["z"])
    assert "'x', 'y'" in str(caught.value)


@pytest.mark.parametrize("layers", [(3, 5), [4, 99], range(2, 5), [-1], [0], []])
def test_palrs_refuses_layers_that_were_not_recorded(layers: Any) -> None:
    with pytest.raises(RecordingError, match="not recorded") as caught:
        palrs(made(), layers=layers)
    assert "1, 2, 4, 7" in str(caught.value)


@pytest.mark.parametrize("layers", [4, "12", [1.5], ["1"], [True]])
def test_palrs_refuses_layers_that_are_none(layers: Any) -> None:
    with pytest.raises(ArgumentError, match="layers must be"):
        palrs(made(), layers=layers)


@pytest.mark.parametrize("depth", [(0.2, 8), (-0.1, 0.5), (float("nan"), 1.0), ("0", 1), (True, 1)])
def test_palrs_refuses_depths_that_are_no_fractions(depth: Any) -> None:
    with pytest.raises(ArgumentError, match="depth must be"):
        palrs(made(), depth=depth)


def test_a_position_is_named_where_there_are_several() -> None:
    with pytest.raises(RecordingError, match="more than one position"):
        mean_difference(made())


@pytest.mark.parametrize("packing", [True, False])
def test_without_a_difference_there_is_no_vector(packing: bool) -> None:
    pairs = some_pairs(4, (None,))
    found = record(tiny(), pairs, "prompt_last", keep="pairs", progress=False, packing=packing)
    for name in METHODS:
        with pytest.raises(RecordingError, match="no difference at prompt_last"):
            get_method(name)(found)
    with pytest.raises(RecordingError, match="no difference"):
        palrs(found, alignment="dot", layers=[0])


@pytest.mark.parametrize("by", ["cosine", "dot"])
def test_palrs_chooses_among_differences_that_are_not_zero(by: Any) -> None:
    chosen = torch.ones(3, 4, WIDTH, dtype=torch.float64)
    rejected = chosen.clone()
    rejected[:, 2] = 3.0  # the alignment of layer 4 is negative, that of the others undefined
    moments = Moments.of(chosen, rejected, torch.ones(3, 4), [0, 1, 2])
    found = Activations({(None, "x"): moments}, LAYERS, {}, None, "packed")
    assert palrs(found, layers=LAYERS, alignment=by).layers == (4,)
    assert float(mean_difference(found).direction(1).norm()) == 0.0


def test_methods_are_registered_by_name() -> None:
    assert methods() == tuple(sorted(methods()))
    assert get_method("palrs") is palrs
    with pytest.raises(RecordingError, match=r" \| ".join(methods())):
        get_method("pca")
    with pytest.raises(RecordingError, match="exists already"):
        method("palrs")(mean_difference)

    @method("first_layer")
    def first_layer(activations: Activations, *, domain: str | None = None) -> Vector:
        return mean_difference(activations, domain=domain)[activations.layers[0]]

    try:
        assert "first_layer" in methods()
        assert get_method("first_layer")(made(positions=("x",))).layers == (1,)
    finally:
        del _METHODS._values["first_layer"]


def test_a_method_may_be_defined_anew_by_whom_it_was_defined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_METHODS, "_values", {})

    def defined() -> object:
        @method("mine")
        def mine(activations, *, domain=None):
            return mean_difference(activations, domain=domain)

        return mine

    defined()
    second = defined()
    assert get_method("mine") is second
    with pytest.raises(RecordingError, match="exists already"):
        method("mine")(palrs)
