"""How vectors show themselves."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import torch

from steer.algebra import (
    Dense,
    Direction,
    LayerStats,
    LowRank,
    Provenance,
    Residual,
    Tuning,
    Vector,
    Weight,
)
from tests.show.forms import bars, html_of, html_text
from tests.store.samples import full, numbers


def rows(vector: Vector) -> list[str]:
    lines = repr(vector).splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[0] in ("layer", "weight"))
    return [line.split()[0] for line in lines[start + 1 :]]


def block(name: str, layer: int, size: float) -> tuple[Weight, LowRank]:
    B = torch.zeros(4, 1)
    B[0] = size
    return Weight(f"model.layers.{layer}.{name}.weight"), LowRank(B, torch.ones(1, 1))


def many() -> Vector:
    """24 weights of two kinds; norms of up_proj are 3, of down_proj 4."""
    found = [block("mlp.up_proj", layer, 3.0) for layer in range(12)]
    found += [block("mlp.down_proj", layer, 4.0) for layer in range(12)]
    return Vector(dict(found))


def test_the_text_says_what_the_vector_is() -> None:
    text = repr(full())
    assert text.splitlines()[0] == "Vector · palrs · medical · 100 pairs"
    for said in (
        "org/model-é (8 layers of width 4, revision 0a1b), config cccccccc",
        "3 residual, d_model 4 + 3 weights, bfloat16/float16/float32/float64",
        "layer 2, coefficient -0.75, add on response[0:9], accuracy 87.5%, KL 0.125 nats/token",
        "medical | legal (+ 1 background), read at layer 2, margin 0.5, routing accuracy 100.0%",
        "palrs(at=None, layers=(2, 5), note='naïve', rescale=True)",
        "100, SHA-256 ffffffff…",
        "CC0-1.0",
        "0.1.0",
    ):
        assert said in text
    table = [line.split() for line in text.splitlines()[-8:]]
    assert table[:4] == [
        ["layer", "norm", "relative", "error/norm", "split-half"],
        ["embed", "0.75", "–", "–", "–"],
        ["2*", "1.601", "0.200", "0.156", "0.969"],
        ["5", "2.562", "0.160", "–", "–"],
    ]
    assert table[4:] == [
        ["weight", "term", "shape", "norm"],
        ["lm_head.weight", "rank", "2", "6×4", "1.635"],
        ["norm.weight", "dense", "4", "0.75"],
        ["scale", "dense", "scalar", "0.625"],
    ]


def test_a_vector_made_by_hand_is_short() -> None:
    lines = repr(Vector.of({0: torch.tensor([3.0, 4.0])})).splitlines()
    assert lines[:2] == ["Vector · unknown", "  sites  1 residual, d_model 2, float32"]
    assert lines[-1].split() == ["0", "5", "–", "–", "–"]
    assert len(lines) == 4


def test_long_tables_are_cut_in_the_middle() -> None:
    long = Vector.of({layer: numbers(2) for layer in range(40)})
    ends = [*"012345", "…", *map(str, range(34, 40))]
    assert rows(long)[:13] == ends
    tuned = replace(long, tuning=Tuning(20, 1.0))
    assert rows(tuned)[:15] == [*"012345", "…", "20*", "…", *map(str, range(34, 40))]
    assert rows(Vector.of({layer: numbers(2) for layer in range(13)})) == list(map(str, range(13)))
    left = ET.fromstring(html_of(long)).findall(".//details//tbody/tr")
    assert [row.find("td").text for row in left] == [str(layer) for layer in range(6, 34)]


def test_measures_are_relative_to_what_they_measure() -> None:
    vector = Vector(
        {Residual(3): Direction(torch.tensor([3.0, 4.0]))},
        stats={3: LayerStats(residual_norm=20.0, standard_error=0.5, split_half_cosine=0.875)},
    )
    assert repr(vector).splitlines()[-1].split() == ["3", "5", "0.250", "0.100", "0.875"]
    zero = 0 * vector
    assert repr(zero).splitlines()[-1].split() == ["3", "0", "0.000", "–", "0.875"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_vector_that_is_not_finite_still_shows_itself(bad: float) -> None:
    vector = Vector(
        {
            Weight("w"): Dense(torch.tensor([bad, 1.0])),
            Residual(1): Direction(torch.ones(2)),
        }
    )
    assert str(bad) in repr(vector)
    assert str(bad) in html_text(vector)


def test_a_bar_stands_for_each_layer() -> None:
    vector = Vector.of({-1: torch.tensor([1.0]), 0: torch.tensor([4.0]), 1: torch.tensor([2.0])})
    plain, tuned = bars(vector)[0], bars(replace(vector, tuning=Tuning(0, 1.0)))[0]
    heights = [float(bar.get("height")) for bar in plain]
    assert heights[1] > 0
    assert heights == pytest.approx([heights[1] / 4, heights[1], heights[1] / 2], abs=0.1)
    assert len({bar.get("fill") for bar in plain}) == 1
    assert [bar.get("fill") != plain[0].get("fill") for bar in tuned] == [False, True, False]
    assert [bar.find("title").text for bar in tuned] == ["embed: 1", "0: 4", "1: 2"]


def test_relative_norms_and_reliability_have_bars_where_they_are_known() -> None:
    stats = {0: LayerStats(residual_norm=4.0), 1: LayerStats(8.0, None, 0.5), 2: LayerStats(8.0)}
    vector = Vector({Residual(k): Direction(torch.ones(4)) for k in range(3)}, stats=stats)
    norms, relative = bars(vector)
    assert len(norms) == 3
    assert [bar.find("title").text for bar in relative] == ["0: 0.5", "1: 0.25", "2: 0.25"]
    stats = {k: LayerStats(8.0, None, 0.5 * k) for k in (1, 2)}
    halves = bars(replace(vector, stats=stats))[-1]
    assert [bar.find("title").text for bar in halves] == ["1: 0.5", "2: 1"]


def test_a_zero_vector_has_no_picture() -> None:
    zero = Vector.of({0: torch.zeros(2), 1: torch.zeros(2)})
    assert "<svg" not in html_of(zero)


def test_many_weights_are_summed_up_by_kind() -> None:
    text = repr(many())
    lines = [line.split() for line in text.splitlines()]
    down = next(line for line in lines if line[0] == "mlp.down_proj")
    up = next(line for line in lines if line[0] == "mlp.up_proj")
    assert down[-3:] == ["64.0%", "13.86", "12"]
    assert up[-3:] == ["36.0%", "10.39", "12"]
    assert "120 numbers, norm 17.32" in text
    assert "the largest 6 of 24" in text
    assert text.count("mlp.down_proj.weight") == 6
    assert "mlp.up_proj.weight" not in text
    assert len(lines) < 30
    root = ET.fromstring(html_of(many()))
    assert len(root.findall(".//details//tbody/tr")) == 18
    assert [bar.find("title").text for bar in bars(many())[0]] == [f"{k}: 5" for k in range(12)]


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e25, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_norm_of_a_model_sized_vector_is_shown(size: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    large = size * torch.randn(2100, 1003, generator=generator, dtype=torch.float64)
    term = Dense(large.to(dtype))
    text = repr(Vector({Weight("w"): term}))
    exact = float(term.W.double().square().sum().sqrt())
    assert f"2,106,300 numbers, norm {exact:.4g}" in text


def test_norms_of_a_large_vector_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from steer.algebra._cards import weights

    large = Vector({Weight(f"w.{k}"): Dense(torch.ones(3)) for k in range(20)})
    monkeypatch.setattr("steer.algebra._cards.vectors._BUDGET", 10)
    monkeypatch.setattr(weights.torch.linalg, "vector_norm", lambda *_, **__: pytest.fail("taken"))
    text = repr(large)
    assert "60 numbers" in text
    assert "nan" not in text
    assert "norm" not in text.replace("v.weight.norm()", "").replace("Norms are not taken", "")
    kind = next(line.split() for line in text.splitlines() if line.split()[:1] == ["w.*"])
    assert kind == ["w.*", "60", "20"]
    assert "v.weight.norm()" in text
    assert "the first 6 of 20" in text


def test_what_stands_in_the_records_is_no_html() -> None:
    evil = "<script>alert('x')</script>&\"'"
    vector = Vector(
        {Weight(evil): Dense(numbers(2))},
        Provenance(method=evil, domain=evil, license=evil, arguments={evil: evil}),
    )
    assert "<script" not in html_of(vector)
    assert evil in html_text(vector)
