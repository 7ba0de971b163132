"""What all views have in common: table, picture, text and HTML."""

import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from steer import Dense, Model, Pair, Pairs, Vector, Weight, view
from steer.errors import ArgumentError, MissingExtraError, SelectionError
from steer.show._look import LINES, MARKERS, PALETTE, category, diverging, ink
from tests.repository.blocks import ROOT
from tests.show.forms import html_of
from tests.tiny import tiny_model, tiny_tokenizer
from tests.view.setting import (
    AT,
    LAYER,
    asked,
    everywhere,
    held_out,
    model,
    palrs,
    weights,
)

ROWS = [
    {"steered": s, "affected": a, "value": 0.5, "low": 0.4, "high": 0.6}
    for s in ("a", "b")
    for a in ("a", "b")
]
DOSE = [{"coefficient": c, "accuracy": 0.5, "low": 0.4, "high": 0.6} for c in (-1.0, 0.0, 1.0)]
MAKE: dict[str, Callable[[], view.View]] = {
    "separation": lambda: view.separation(model(), everywhere(), held_out()[:5], position=AT),
    "lens": lambda: view.lens(model(), everywhere(), asked()[:1]),
    "cosines": lambda: view.cosines({"u": everywhere(), "w": -1.0 * everywhere()}),
    "cosines_weight": lambda: view.cosines({"u": weights(), "w": weights()}),
    "layer_cosines": lambda: view.layer_cosines(everywhere()),
    "principal_components": lambda: view.principal_components(model(), held_out(), layer=LAYER),
    "spectrum": lambda: view.spectrum(weights()),
    "displacement": lambda: view.displacement(model(), weights(), asked(), against=palrs()),
    "trajectory": lambda: view.trajectory(model(), palrs(), asked()[0], "No ."),
    "next_token": lambda: view.next_token(model(), palrs(), asked()[0], 0.5),
    "interference": lambda: view.interference(ROWS),
    "dose_response": lambda: view.dose_response(DOSE),
}
NAMES = list(MAKE)


@cache
def made(name: str) -> view.View:
    return MAKE[name]()


def test_every_view_is_tried() -> None:
    functions = {n for n in view.__all__ if n[0].islower()}
    assert functions == set(NAMES) - {"cosines_weight"}


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_has_every_panel_and_names_its_axes(name: str) -> None:
    found = made(name)
    figure = found.plot()
    drawn = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert len(drawn) == len(found.panels)
    bars = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    assert all(bar.get_ylabel() for bar in bars)
    for ax in drawn:
        named = [t.get_text() for t in ax.get_yticklabels() + ax.get_xticklabels()]
        assert ax.get_ylabel() or any(re.search("[a-z]", text) for text in named)
        assert ax.get_xlabel() or any(re.search("[a-z]", text) for text in named)


@pytest.mark.parametrize("name", NAMES)
def test_a_view_draws_into_axes_that_are_given(name: str) -> None:
    from matplotlib.figure import Figure

    found = made(name)
    figure = Figure()
    last = list(found.panels)[-1]
    ax = figure.subplots()
    empty = len(ax.get_children())
    assert found.plot(ax, panel=last) is figure
    assert len(ax.get_children()) > empty
    assert len(found.plot(panel=last).axes) <= 2
    with pytest.raises(ArgumentError, match="panel"):
        found.plot(panel="nothing")


@pytest.mark.parametrize("name", NAMES)
def test_the_text_shows_the_table(name: str) -> None:
    found = made(name)
    text = repr(found)
    assert text.splitlines()[0] == found.title
    assert len(found.to_pandas()) == len(found.rows) > 0
    assert all(column in text for column in found.rows[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_html_shows_table_and_charts(name: str) -> None:
    found = made(name)
    html = html_of(found)
    assert html.count("<figure>") == len(found.panels)
    assert html.count("<tr>") >= min(len(found.rows), 40) + 1


def test_no_window_is_opened_and_a_notebook_shows_the_figure() -> None:
    code = (
        "import sys; from steer import view; "
        "assert 'matplotlib' not in sys.modules; "
        "found = view.dose_response([{'coefficient': c, 'value': c} for c in (0.0, 1.0)]); "
        "print(repr(found)); figure = found.plot(); "
        "assert figure._repr_png_()[1:4] == b'PNG'; "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_plotting_without_matplotlib_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = made("dose_response")
    with pytest.raises(MissingExtraError, match=r"residual-steer\[plot\]"):
        found.plot()
    assert "<svg" in html_of(found)


def test_signs_that_mean_something_to_matplotlib_or_lack_a_glyph_are_drawn_as_text() -> None:
    tokens = ("$x_$", "字", "\x07", "plain")
    odd = view.Trajectory(tokens, torch.tensor([1.0, 2.0, 3.0, 4.0]), 1, 0, 0.0, 4.0)
    figure = odd.plot()
    figure._repr_png_()
    labels = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert labels[0] == "$x_$"
    assert labels[1] == "\\u5b57"
    assert labels[3] == "plain"


def test_categories_differ_in_more_than_colour() -> None:
    looks = [category(n) for n in range(28)]
    assert len(set(looks)) == 28
    colours, markers, lines = zip(*looks[:7], strict=True)
    assert colours == PALETTE
    assert markers == MARKERS
    assert set(lines) == set(LINES)


@pytest.mark.parametrize("share", torch.linspace(-1, 1, 21).tolist())
def test_text_on_a_colour_can_be_read(share: float) -> None:
    """A contrast of at least 4.5, as WCAG 2 asks for text."""
    colour = diverging(share)
    light = luminance(colour)
    front = 0.0 if ink(colour) == "#000000" else 1.0
    low, high = sorted((light, front))
    assert (high + 0.05) / (low + 0.05) >= 4.5


def luminance(colour: tuple[int, int, int]) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (x / 255 for x in colour)
    ]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    odd = "$\\frac{$"
    rows = [{"coefficient": c, "on": on, "value": 1.0} for c in (0, 1) for on in (odd, "_b")]
    figure = view.dose_response(rows).plot()
    figure.savefig(tmp_path / "x.png")
    assert [text.get_text().strip() for text in figure.axes[0].get_legend().get_texts()] == [
        odd,
        "_b",
    ]
    view.dose_response([{"coefficient": c, odd: 1.0} for c in (0, 1)], odd).plot().savefig(
        tmp_path / "y.png"
    )
    effects = [{"steered": "a", "affected": "b", "value": 1.0, "measure": odd}]
    view.interference(effects).plot().savefig(tmp_path / "z.png")


@pytest.mark.parametrize("name", ["_b", "x" * 5000, "$\\frac{$", "a\nb", "[red]<b>"])
def test_any_name_is_drawn_within_the_picture(name: str, tmp_path: Path) -> None:
    """Matplotlib warns where nothing of the axes or no name of a legend is left."""
    from matplotlib.figure import Figure

    g = torch.Generator().manual_seed(0)
    pairs = [Pair("Is it?", f"No {k} .", f"Yes {k} .", name) for k in range(3)]
    module = Vector({Weight(f"h.1.{name}.weight"): Dense(torch.randn(3, 3, generator=g))})
    for found in (
        view.cosines({name: everywhere(), "b": -1.0 * everywhere()}),
        view.interference([{"steered": name, "affected": name, "value": 1.0, "measure": name}]),
        view.dose_response(
            [{"coefficient": c, "on": on, name: 1.0} for c in (0, 1) for on in "ab"], name
        ),
        view.principal_components(model(), Pairs.of(pairs), layer=LAYER),
        view.spectrum(module),
    ):
        found.plot().savefig(tmp_path / "x.png", dpi=30)
        found.plot(Figure(dpi=30).subplots()).savefig(tmp_path / "x.png")
        assert found._repr_html_()
        assert repr(found)
    (shown,) = view.spectrum(module).plot(panel="spectrum").axes[0].get_legend().get_texts()
    assert shown.get_text().strip()[0] == name[0]
    assert len(shown.get_text()) <= 60


@pytest.mark.parametrize(
    "call",
    [
        lambda lm, v: view.lens(lm, v, "Is it safe?"),
        lambda lm, v: view.lens(lm, v, ["Is it safe?"], path="foo"),
        lambda lm, v: view.lens(lm, v, ["Is it safe?"], k=0),
        lambda lm, v: view.next_token(lm, v, "Is it safe?", k=-1),
        lambda lm, v: view.displacement(lm, v, "Is it safe?", 0.5),
        lambda lm, v: view.displacement(lm, v, ["Is it safe?"], 0.5, tokens="foo"),
        lambda lm, v: view.trajectory(lm, 0.0 * v, "Is it safe?", response="a"),
        lambda lm, v: view.trajectory(lm, v, "Is it safe?", response="a", centre=float("nan")),
    ],
)
def test_what_a_view_cannot_use_is_refused_at_the_call(call: Any) -> None:
    lm = Model(tiny_model("llama"), tiny_tokenizer())
    with pytest.raises((ArgumentError, SelectionError)):
        call(lm, Vector.of({2: torch.ones(32)}))


def test_a_vector_of_zeros_promotes_nothing_on_either_path() -> None:
    lm = Model(tiny_model("llama"), tiny_tokenizer())
    zero = Vector.of({2: torch.zeros(32)})
    for path in ("direct", "model"):
        assert not view.lens(lm, zero, ["Is it safe?"], path=path).effects.any()
