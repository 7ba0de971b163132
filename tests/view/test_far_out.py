"""One token that is far out does not squash the picture of the others, and is marked."""

from typing import Any

import pytest
import torch

import steer
from steer import view
from tests.tiny import tiny_model, tiny_tokenizer

OTHERS = [30.0, -28.0, 12.0, 5.0, -3.0, 22.0, -14.0, 8.0]


def coloured(projections: list[float], start: int = 2, centre: float = 0.0) -> view.Trajectory:
    tokens = tuple(f"t{k}" for k in range(len(projections)))
    values = torch.tensor(projections, dtype=torch.float64)
    return view.Trajectory(tokens, values, start, 3, centre, 30.0)


def drawn(found: view.View) -> Any:
    (ax,) = found.plot().axes
    return ax


def marks(ax: Any) -> dict[str, list[float]]:
    """The places of the marks that point up and down."""
    return {
        sign: [float(x) for line in ax.lines if line.get_marker() == sign for x in line.get_xdata()]
        for sign in "^v"
    }


@pytest.mark.parametrize("places", [[0], [4], [0, 5], [8]])
@pytest.mark.parametrize("far", [-2841.0, 5051.8])
def test_a_far_token_is_cut_off_and_marked(places: list[int], far: float) -> None:
    values = list(OTHERS)
    for place in places:
        values.insert(place, far)
    ax = drawn(coloured(values))
    low, high = ax.get_ylim()
    assert low <= -28
    assert high >= 30
    assert high - low < 2 * (30 + 28)
    beyond = {"^": [], "v": []} | {"^" if far > 0 else "v": [float(k) for k in places]}
    assert marks(ax) == beyond
    texts = [text.get_text() for text in ax.texts]
    assert texts.count(f"{far:,.4g}") == len(places)
    assert any(f"{len(places)} of {len(values)} tokens" in text for text in texts)


@pytest.mark.parametrize(
    "values",
    [
        OTHERS,
        [*OTHERS, 180.0],
        [30.0, 5000.0],
        [0.0] * 9,
        [0.0] * 8 + [1.0],
        [1.0],
        [float(k) for k in range(40)],
    ],
)
def test_without_a_far_token_all_are_within(values: list[float]) -> None:
    ax = drawn(coloured(values, start=1))
    low, high = ax.get_ylim()
    assert low <= min(values)
    assert high >= max(values)
    assert marks(ax) == {"^": [], "v": []}
    assert not any("tokens" in text.get_text() for text in ax.texts)


def test_the_centre_stays_in_the_picture() -> None:
    ax = drawn(coloured([5000.0, *OTHERS], centre=-200.0))
    low, high = ax.get_ylim()
    assert low <= -200
    assert 30 <= high < 100


def test_colours_of_a_short_text_are_not_those_of_its_first_token() -> None:
    lm = steer.Model(tiny_model("llama"), tiny_tokenizer())
    vector = steer.Vector.of({1: torch.ones(32)})
    first = lm.activations(["how"], ["fine"], layers=[0])  # the ids are those of the template
    assert first
    found = view.trajectory(lm, vector, "how", "fine")
    ids = lm.tokenizer(lm.tokenizer.bos_token, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        lm.architecture.embedding.weight[ids] += 300.0
    sunk = view.trajectory(lm, vector, "how", "fine")
    assert float(sunk.projections[0]) > 50 * float(found.projections[1:].abs().max())
    assert sunk.end < 3 * float(sunk.projections[1:].abs().max())
    assert "blue ≥" in sunk.title


def test_a_far_effect_does_not_take_the_colours_of_a_lens() -> None:
    effects = torch.linspace(-1, 1, 40, dtype=torch.float64).repeat(6, 1)
    effects[2, 7] = 500.0
    found = view.Lens(effects, tuple(map(str, range(40))), tuple(range(6)), "direct", "h", 4)
    for panel in ("promoted", "suppressed"):
        figure = found.plot(panel=panel)
        (image,) = figure.axes[0].images
        assert -2 < image.norm.vmin < -0.9
        assert 0.9 < image.norm.vmax < 2
        assert image.colorbar.extend == ("max" if panel == "promoted" else "neither")
