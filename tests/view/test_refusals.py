"""What views cannot use is refused at the call, with what was found, expected, and what to do."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import steer
from steer import view
from steer.demo.language import pairs as pairs_of
from steer.errors import (
    ArgumentError,
    FitError,
    RecordingError,
    SelectionError,
    SteerError,
    SteeringError,
    TextError,
)
from tests.view.setting import (
    LAYER,
    activations,
    asked,
    everywhere,
    held_out,
    model,
    palrs,
    weights,
)

WIDE = steer.Vector.of({1: torch.ones(7), 2: torch.ones(7)})
ODD: list[Any] = [None, Path("x.safetensors"), "x", ["a", "b"], {"a": None}, 3, torch.ones(3)]
DOSE = [{"coefficient": c, "value": 1.0} for c in (0.0, 1.0)]
CALLS: dict[str, Callable[[Any], object]] = {
    "cosines": view.cosines,
    "spectrum": view.spectrum,
    "layer_cosines": view.layer_cosines,
    "separation, model": lambda x: view.separation(x, palrs(), held_out()),
    "separation, what": lambda x: view.separation(model(), x, held_out()),
    "separation, pairs": lambda x: view.separation(model(), palrs(), x),
    "principal_components, pairs": lambda x: view.principal_components(model(), x, layer=1),
    "lens, model": lambda x: view.lens(x, palrs(), asked()),
    "lens, vector": lambda x: view.lens(model(), x, asked()),
    "displacement, model": lambda x: view.displacement(x, palrs(), asked()),
    "displacement, what": lambda x: view.displacement(model(), x, asked()),
    "displacement, tokens": lambda x: view.displacement(model(), palrs(), asked(), tokens=x),
    "trajectory, model": lambda x: view.trajectory(x, palrs(), "Is it?", "No ."),
    "trajectory, vector": lambda x: view.trajectory(model(), x, "Is it?", "No ."),
    "next_token, model": lambda x: view.next_token(x, palrs(), "Is it?"),
    "next_token, what": lambda x: view.next_token(model(), x, "Is it?"),
    "interference": view.interference,
    "dose_response": view.dose_response,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: type(odd).__name__)
def test_another_kind_of_thing_is_refused(name: str, odd: Any) -> None:
    with pytest.raises(SteerError):
        CALLS[name](odd)


@pytest.mark.parametrize(
    "call",
    [
        lambda lm, v: view.separation(lm, v, held_out(), position=3),
        lambda lm, v: view.separation(lm, v, held_out(), layers=3),
        lambda lm, v: view.separation(lm, v, held_out(), layers=[[3]]),
        lambda lm, v: view.principal_components(lm, held_out(), layer="3"),
        lambda lm, v: view.principal_components(lm, held_out(), layer=3, components=None),
        lambda lm, v: view.lens(lm, activations(), asked()),
        lambda lm, v: view.lens(lm, v, activations()),
        lambda lm, v: view.separation(lm, activations(), held_out()),
        lambda lm, v: view.displacement(lm, v, asked(), against=activations()),
        lambda lm, v: view.lens(lm, v, asked(), layers=[1.5]),
        lambda lm, v: view.displacement(lm, v, asked(), against="x"),
        lambda lm, v: view.displacement(lm, v, asked()[:1], responses=[3]),
        lambda lm, v: view.displacement(lm, v, asked()[:1], responses="No ."),
        lambda lm, v: view.trajectory(lm, v, "Is it?", 3),
        lambda lm, v: view.trajectory(lm, v, "Is it?", "No .", layer="3"),
        lambda lm, v: view.trajectory(lm, v, "Is it?", "No .", centre=None),
        lambda lm, v: view.next_token(lm, v, "Is it?", begun=3),
        lambda lm, v: view.spectrum(weights()).energy_by("module"),
        lambda lm, v: view.interference(DOSE, measure=3),
        lambda lm, v: view.dose_response(DOSE, 3),
    ],
)
def test_another_kind_of_argument_is_refused(call: Any) -> None:
    with pytest.raises(ArgumentError):
        call(model(), palrs())


def test_responses_are_as_many_as_prompts() -> None:
    with pytest.raises(TextError, match="differ in number"):
        view.displacement(model(), palrs(), asked(), responses=["No ."])


def test_names_of_vectors_are_text() -> None:
    with pytest.raises(ArgumentError, match="the name 1"):
        view.cosines({1: everywhere(), 2: everywhere()})  # type: ignore[dict-item]
    with pytest.raises(ArgumentError, match="what is named 'b'"):
        view.cosines({"a": everywhere(), "b": None})  # type: ignore[dict-item]


def test_vectors_of_another_width_are_refused() -> None:
    for call in (
        lambda: view.separation(model(), WIDE, held_out()),
        lambda: view.lens(model(), WIDE, asked()),
        lambda: view.trajectory(model(), WIDE, asked()[0], "No .", layer=1),
        lambda: view.displacement(model(), palrs(), asked(), against=WIDE[1]),
    ):
        with pytest.raises(FitError, match="width 128"):
            call()


def test_a_displacement_is_that_of_one_setting() -> None:
    rows = [{"medical": 0.5}] * len(asked())
    for given in (rows, torch.ones(len(asked()), 1)):
        with pytest.raises(SteeringError, match="one setting"):
            view.displacement(model(), palrs(), asked(), given)
    with pytest.raises(SteeringError, match="one setting"):
        view.displacement(model(), steer.compose(medical=palrs())(rows), asked())


@pytest.mark.parametrize("rows", [3, 8])
def test_pairs_are_read_under_one_setting(rows: int) -> None:
    """With 4 pairs there are 8 texts: as many rows would be taken for theirs."""
    lm, pairs = model(), held_out()[:4]
    with lm.steered(palrs(), [{"medical": 0.1}] * rows):
        for call in (
            lambda: view.separation(lm, palrs(), pairs),
            lambda: view.principal_components(lm, pairs, layer=LAYER),
            lambda: view.displacement(lm, palrs(), asked()),
        ):
            with pytest.raises(SteeringError, match="one row for each prompt"):
                call()


def test_pairs_are_read_without_scope_and_gate() -> None:
    lm, pairs = model(), held_out()[:4]
    gate = steer.domain_gate(lm, held_out() + pairs_of("legal", 20), layer=1)
    for options in ({"scope": "response"}, {"gate": gate}):
        with lm.steered(palrs(), 0.5, **options):
            for call in (
                lambda: view.separation(lm, palrs(), pairs),
                lambda: view.principal_components(lm, pairs, layer=LAYER),
            ):
                with pytest.raises(SteeringError, match="a gate or a scope"):
                    call()
            assert view.displacement(lm, palrs(), asked()).moved.any()


def test_a_model_that_overflows_is_not_looked_at() -> None:
    lm, v = model(), everywhere()
    far = steer.Vector.of({0: torch.full((128,), 3e38)})
    for call in (
        lambda: view.displacement(lm, far, asked(), 3.0),
        lambda: view.next_token(lm, far, asked()[0], 3.0),
    ):
        with pytest.raises(SelectionError, match="overflowed"):
            call()
    with lm.steered(far, 3.0):
        for call in (
            lambda: view.lens(lm, v, asked()),
            lambda: view.trajectory(lm, v[LAYER], asked()[0], "No ."),
        ):
            with pytest.raises(SelectionError, match="overflowed"):
                call()
        for call in (
            lambda: view.separation(lm, v, held_out()),
            lambda: view.principal_components(lm, held_out(), layer=LAYER),
        ):
            with pytest.raises(RecordingError, match="not finite"):
                call()


def test_a_vector_of_weights_alone_is_sent_elsewhere() -> None:
    for call in (
        lambda: view.separation(model(), weights(), held_out()),
        lambda: view.layer_cosines(weights()),
        lambda: view.displacement(model(), palrs(), asked(), against=weights()),
    ):
        with pytest.raises(RecordingError, match="weight sites alone"):
            call()


def test_a_share_of_the_energy_lies_above_0_and_at_most_at_1() -> None:
    module = view.spectrum(weights()).modules[0]
    for share in (0, 1.1, math.nan, "all"):
        with pytest.raises(ArgumentError, match="share"):
            module.rank_for(share)  # type: ignore[arg-type]


def test_a_direction_of_length_0_separates_nothing() -> None:
    zero = steer.Vector.of({1: torch.ones(128), 2: torch.zeros(128)})
    with pytest.raises(SelectionError, match=r"zero at layers \[2\]"):
        view.separation(model(), zero, held_out())
    assert view.separation(model(), zero, held_out(), layers=[1]).layers == (1,)


def test_layers_that_are_not_there_are_named_beside_those_that_are() -> None:
    with pytest.raises(RecordingError, match=r"99(.|\n)*from 0 to 5"):
        view.separation(model(), palrs(), held_out(), layers=[99])
    with pytest.raises(RecordingError, match=r"layers \[99\](.|\n)*some of \[0, 1, 2, 3, 4, 5\]"):
        view.separation(model(), everywhere(), held_out(), layers=[99])


def test_a_reading_or_layer_that_a_result_lacks_is_refused() -> None:
    found = view.next_token(model(), palrs(), asked()[0])
    with pytest.raises(ArgumentError, match=r"'before' \| 'after'"):
        found.top("foo", 0)
    for layer in (-1, 6):
        with pytest.raises(ArgumentError, match="layer"):
            found.top("after", layer)
    with pytest.raises(ArgumentError, match="layer"):
        view.lens(model(), palrs(), asked()[:1]).promoted(1)


@pytest.mark.parametrize("bad", [math.inf, math.nan, None, "much"])
def test_a_cell_needs_a_finite_number(bad: Any) -> None:
    row = {"steered": "a", "affected": "a", "value": 0.5}
    with pytest.raises(SelectionError, match="row 1"):
        view.interference([row, {**row, "affected": "b", "value": bad}])


def test_intervals_may_be_missing() -> None:
    row = {"steered": "a", "affected": "a", "value": 0.5, "low": None}
    assert view.interference([row]).low.isnan().all()


def test_a_measure_that_is_not_there_is_named_beside_those_that_are() -> None:
    row = {"steered": "a", "affected": "a", "value": 0.5, "measure": "margin"}
    with pytest.raises(SelectionError, match="margin"):
        view.interference([row], measure="accuracy")


def test_points_need_numbers() -> None:
    for bad in ({"coefficient": 2.0}, {"value": 1.0}, {"coefficient": 2.0, "value": "much"}):
        with pytest.raises(SelectionError, match="row 2"):
            view.dose_response([*DOSE, bad])
    with pytest.raises(SelectionError, match="finite"):
        view.dose_response([*DOSE, {"coefficient": math.inf, "value": 1.0}])


def test_values_that_are_not_finite_are_marked() -> None:
    lost = [{"coefficient": c, "value": v} for c, v in ((2.0, math.nan), (3.0, math.inf))]
    found = view.dose_response([*DOSE, *lost])
    assert "2 of the values not finite" in repr(found)
    crosses = [line for line in found.plot().axes[0].lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[2.0, 3.0]]
    legend = found.plot().axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["value", "not finite: value"]
    whole = view.dose_response(DOSE)
    assert "not finite" not in whole.title
    (shown,) = whole.plot().axes[0].get_legend().get_texts()
    assert shown.get_text() == "value"
