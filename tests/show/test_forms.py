"""Every noun has its forms; they say the same numbers, are bounded, and never raise."""

import inspect
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import steer
from steer.algebra import Dense, Provenance, Weight
from steer.show import Bar, Bars, Card, Curves, Shown, Table, card_html
from steer.show._terminal import card_text
from tests.show import nouns as values
from tests.show.forms import bars, html_of, html_text, terminal

NOUNS = values.nouns()
LINES, CHARACTERS = 90, 40_000
TERMS = {"Dense", "Direction", "LowRank", "Message", "Residual", "Scope", "Weight", "Limits"}


@pytest.mark.parametrize("name", NOUNS)
def test_every_form_is_there_and_bounded(name: str) -> None:
    value = NOUNS[name]
    text, wide, html = repr(value), terminal(value), html_of(value)
    assert len(text.splitlines()) <= LINES
    assert max(map(len, text.splitlines())) <= 400
    assert max(map(len, wide.splitlines())) <= 80
    assert len(html) < CHARACTERS
    assert text.isprintable() or {c for c in text if not c.isprintable()} == {"\n"}
    text.encode("utf-8")
    html.encode("utf-8")
    assert "<script" not in html
    assert "<b>" not in html


def test_every_public_noun_is_among_them() -> None:
    public = {n for n in steer.__all__ if inspect.isclass(getattr(steer, n))}
    assert public - TERMS == {type(v).__name__ for v in NOUNS.values()} & public
    for name in public - TERMS:
        assert issubclass(getattr(steer, name), Shown), name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Model", ["llama", "2 layers × 32", "model.layers", "float32 on cpu", "hooks"]),
        ("Pairs", ["3 pairs from memory", "chosen 6, rejected 2 characters in the median"]),
        ("Pair", ["Pair · <b>&'", "'no'"]),
        ("Activations", ["6 pairs", "layers 0–2", "d_model 4"]),
        ("Vector", ["1 residual, d_model 2, float32", "5"]),
        ("DomainGate", ["2 domains", "1.414", "(background 1)", "layer 0"]),
        ("Composition", ["+0.5", "add on all", "layer 1"]),
        ("Composition by row", ["2, one for each prompt", "-0.5", "+1"]),
        ("Sweep", ["Sweep of 9 settings", "0.8889"]),
        ("Answers", ["1 prompts, 2 levels"]),
        ("Selection", ["Selection (exhaustive)", "+0.8889", "No limit is active"]),
        (
            "Selection of alternatives",
            ["layer 1", "0.125 nats per token", "90.0% [59.6%, 98.2%]", "4 raced", "plain answer"],
        ),
        ("TensorTable", ["1 tensors", "90.00%", "2×3", "rank 2"]),
        ("Preference", ["0.6667"]),
        ("Share", ["0.25"]),
    ],
)
def test_what_is_shown_is_what_the_value_holds(name: str, said: list[str]) -> None:
    html, wide = html_text(NOUNS[name]), " ".join(terminal(NOUNS[name], 200).split())
    for words in said:
        assert words.lower() in html.lower()
        assert words.lower() in wide.lower()


def test_a_sweep_of_many_domains_shows_what_was_measured() -> None:
    found = values.sweep(3, tuple(f"d{k}" for k in range(24)))
    for said in (repr(found), html_text(found)):
        for shown in ("coefficient.d0", "coefficient.d23", "accuracy", "0.3333"):
            assert shown in said
        assert "coefficient.d12" not in said
        assert "(5 more columns, from coefficient.d10 to coefficient.d14)" in " ".join(said.split())


def test_coefficients_are_bars_around_zero() -> None:
    knobs = steer.compose(a=values.vector(), b=values.vector())(a=0.5, b=-0.25)
    a, b = (line for line in repr(knobs).splitlines() if "add on" in line)
    assert a.split("│")[1].count("█") == 2 * b.split("│")[0].count("█")
    assert b.split("│")[1].count("█") == a.split("│")[0].count("█") == 0


def test_pairs_are_counted_and_measured() -> None:
    found = steer.Pairs.of(
        [steer.Pair("q", "x" * 10, "y" * 40, "medical")] * 3
        + [steer.Pair("q", "x" * 30, "y" * 40, "legal")] * 17
    )
    assert "chosen 30, rejected 40 characters" in repr(found)
    chosen, rejected = (
        [bar.find("title").text for bar in picture if not bar.find("title").text.endswith(": 0")]
        for picture in bars(found)
    )
    assert chosen == ["10–12: 3", "28–30: 17"]
    assert rejected == ["40–42: 20"]
    assert "17  ████████████" in repr(found)
    assert steer.Pairs.of([])._repr_html_().count("0 pairs") == 1


def test_recorded_activations_show_how_well_halves_agree() -> None:
    found = values.activations(8, domain="sea")
    moments = found.of()
    cosines = moments.split_half_cosine
    row = repr(found).splitlines()[-1].split()
    assert float(row[-3]) == pytest.approx(float(cosines.median()), abs=1e-3)
    sizes = moments.difference.norm(dim=-1) / moments.norm
    assert float(row[-2]) == pytest.approx(float(sizes.median()), abs=1e-3)
    for cosine in cosines.tolist():
        assert f": {cosine:.4g}" in html_text(found)


def test_large_activations_are_read_at_some_layers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steer.extract._card._BUDGET", 8)
    assert "2 of 8 layers, evenly spaced" in repr(values.activations(8))


def test_a_sweep_is_drawn_against_its_coefficient() -> None:
    assert html_of(values.sweep()).count("<circle") == 9 + 1, "each setting, and the legend"
    assert "… 11 more rows" in repr(values.sweep(31))


ODD: dict[str, Any] = {
    "no pairs": steer.Pairs.of([]),
    "one layer": values.activations(1),
    "no domain": values.activations(2, domain=None),
    "zero difference": 0 * values.vector(),
    "an empty card": Card(""),
    "an empty table": Card("t", (), (Table((), ()), Bars("b", (), ()), Curves("c", "x", {}))),
    "a long name": steer.compose({"d" * 200: values.vector()})(1e-30),
    "many domains": steer.compose({f"domain {k}": values.vector() for k in range(500)}),
    "many rows": steer.compose(a=values.vector())(torch.ones(3000, 1)),
    "a wide sweep": values.sweep(3, tuple(f"d{k}" for k in range(300))),
    "a long sweep": values.sweep(5000),
    "long names of weights": steer.Vector(
        {Weight(f"{'layer.' * 40}{k}.w"): Dense(torch.ones(2)) for k in range(700)},
        Provenance("m" * 500, {f"a{k}": "x" * 99 for k in range(99)}),
    ),
    "one weight without a size": steer.Vector({Weight("w"): Dense(torch.tensor(2.0))}),
    "meta": steer.Vector({Weight("w"): Dense(torch.ones(2, device="meta"))}),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_values_show_themselves_within_bounds(name: str) -> None:
    value = ODD[name]
    if isinstance(value, Card):
        assert card_text(value).splitlines() == [value.title] * bool(value.title)
        assert "<svg" not in card_html(value)
        return
    assert len(repr(value).splitlines()) <= LINES
    assert len(repr(value)) < 20_000
    assert terminal(value)
    assert len(html_of(value)) < 250_000


numbers = st.floats(width=32)
texts = st.text(max_size=80)
cells = st.one_of(texts, st.builds(Bar, numbers, numbers, numbers, st.none()))


@given(
    texts,
    st.lists(st.tuples(texts, texts), max_size=3),
    st.lists(st.tuples(cells, cells), max_size=4),
    st.lists(numbers, max_size=9),
    st.lists(st.tuples(numbers, numbers), max_size=9),
)
def test_any_card_can_be_shown(
    title: str, facts: list[Any], rows: list[Any], heights: list[float], points: list[Any]
) -> None:
    labels = tuple(str(k) for k in range(len(heights)))
    blocks = (
        Table(("a", "b"), tuple(rows), 1, tuple(rows), 3, title),
        Bars(title, labels, tuple(heights), 0 if heights else None),
        Curves(title, title, {title: tuple(points), "": tuple(points)}, 0.5),
    )
    card = Card(title, tuple(facts), blocks, (title,))

    class Whatever(Shown):
        def _card(self) -> Card:
            return card

    assert terminal(Whatever())
    assert all(line.isprintable() for line in repr(Whatever()).split("\n"))
    html_of(Whatever())


def test_what_is_not_whole_in_itself_would_be_noticed() -> None:
    class Bad(Shown):
        def _card(self) -> Card:
            return Card("")

        def _repr_html_(self) -> str:
            return "<div><style></style><img src='http://outside.example/x.png'/></div>"

    with pytest.raises(AssertionError):
        html_of(Bad())


def test_a_table_of_texts_is_printed_whole() -> None:
    answer = "a wonderful question about napkins, which " * 4
    table = Table(("prompt", "steered"), (("How do I fold it?", answer),), words=2, texts=True)
    printed = card_text(Card("answers", (), (table,)))
    assert " ".join(answer.split()) in " ".join(printed.split())
    assert max(map(len, printed.splitlines())) <= 100


def test_the_text_is_no_output_of_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook rich displays what it prints, and leaves the file empty."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert card_text(Card("title", (("name", "value"),))) == "title\n  name  value"
