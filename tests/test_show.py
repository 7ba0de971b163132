"""How vectors print."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import torch

from steer.provenance import LayerStats, Provenance, Tuning
from steer.show import vector_html, vector_text
from steer.site import EMBED, Residual, Weight
from steer.term import Dense, Direction
from steer.vector import Vector
from tests.store.samples import full, numbers

FULL = """\
Vector · palrs · medical · 100 pairs
  model   org/model-é (8 layers of width 4, revision 0a1b)
  sites   3 residual, d_model 4 + 3 weights, bfloat16/float16/float32/float64
  tuning  layer 2, coefficient -0.75, add on response[0:9], accuracy 87.5%, KL 0.125 nats/token
  gate    medical | legal (+ 1 background), read at layer 2, margin 0.5, routing accuracy 100.0%
  license CC0-1.0
  layer   norm  relative  error/norm  split-half
  embed   0.75         -           -           -
  2*     1.601     0.200       0.156       0.969
  5      2.562     0.160           -           -
  weight            term   shape   norm
  lm_head.weight  rank 2     6×4  1.635
  norm.weight      dense       4   0.75
  scale            dense  scalar  0.625"""
BY_HAND = """\
Vector · unknown
  sites   1 residual, d_model 2, float32
  layer  norm  relative  error/norm  split-half
  0         5         -           -           -"""


def test_the_text_says_what_the_vector_is():
    assert vector_text(full()) == FULL
    assert repr(full()) == FULL


def test_a_vector_made_by_hand_is_short():
    assert repr(Vector.of({0: torch.tensor([3.0, 4.0])})) == BY_HAND


def rows(vector: Vector) -> list[str]:
    lines = repr(vector).splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[0] in ("layer", "weight"))
    return [line.split()[0] for line in lines[start + 1 :]]


def test_long_tables_are_cut_in_the_middle():
    many = Vector.of({layer: numbers(2) for layer in range(40)})
    ends = [*"012345", "…", *map(str, range(34, 40))]
    assert rows(many) == ends
    tuned = replace(many, tuning=Tuning(20, 1.0))
    assert rows(tuned) == [*"012345", "…", "20*", "…", *map(str, range(34, 40))]
    assert rows(Vector.of({layer: numbers(2) for layer in range(13)})) == list(map(str, range(13)))
    weights = Vector({Weight(f"w{i:02}"): Dense(numbers(2)) for i in range(20)})
    assert rows(weights)[5:8] == ["w05", "…", "w14"]


def test_measures_are_relative_to_what_they_measure():
    vector = Vector(
        {Residual(3): Direction(torch.tensor([3.0, 4.0]))},
        stats={3: LayerStats(residual_norm=20.0, standard_error=0.5, split_half_cosine=0.875)},
    )
    assert repr(vector).splitlines()[-1].split() == ["3", "5", "0.250", "0.100", "0.875"]
    zero = 0 * vector
    assert repr(zero).splitlines()[-1].split() == ["3", "0", "0.000", "-", "0.875"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_vector_that_is_not_finite_still_prints(bad):
    vector = Vector(
        {Weight("w"): Dense(torch.tensor([bad, 1.0])), Residual(1): Direction(torch.ones(2))}
    )
    assert str(bad) in repr(vector)
    ET.fromstring(vector_html(vector))


def test_the_html_has_a_bar_for_each_layer():
    vector = replace(
        Vector.of({-1: torch.tensor([1.0]), 0: torch.tensor([4.0]), 1: torch.tensor([2.0])}),
        tuning=Tuning(0, 1.0),
    )
    root = ET.fromstring(vector._repr_html_())
    bars = root.findall(".//rect")
    assert [float(bar.get("height")) for bar in bars] == [12.0, 48.0, 24.0]
    assert [float(bar.get("y")) for bar in bars] == [36.0, 0.0, 24.0]
    assert [bar.get("fill-opacity") for bar in bars] == ["0.5", "1", "0.5"]
    assert bars[0].find("title").text == "embed: norm 1"
    assert bars[1].find("title").text == "resid_post.0: norm 4"


def test_the_html_says_what_the_text_says():
    text, html = repr(full()), "".join(ET.fromstring(full()._repr_html_()).itertext())
    for line in text.splitlines():
        assert all(word in html for word in line.split())


def test_a_zero_vector_and_weights_alone_have_no_picture():
    zero = 0 * Vector({EMBED: Direction(numbers(2))})
    for vector in (zero, Vector({Weight("w"): Dense(numbers(2, 2))})):
        assert "<svg" not in vector_html(vector)
        ET.fromstring(vector_html(vector))


def test_what_stands_in_the_records_is_no_html():
    evil = "<script>alert('x')</script>&\"'"
    vector = Vector(
        {Weight(evil): Dense(numbers(2))},
        Provenance(method=evil, domain=evil, license=evil),
    )
    html = vector_html(vector)
    assert "<script" not in html
    assert evil in "".join(ET.fromstring(html).itertext())
