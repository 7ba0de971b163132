"""Laws of every extraction method, whoever registered it: each is a function of its name."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from steer.algebra import Vector
from steer.errors import RecordingError
from steer.extract import Activations, get_method
from steer.extract._moments import KeptPairs, Moments
from steer.extract._registry import keep_for

LAYERS, WIDTH, COUNT = (1, 2, 4, 7), 5, 9
AT = "template[-1]"


def recording(*domains: str | None, order: Any = None, shift: float = 1.0) -> Activations:
    """Pairs without any model, their chosen side moved by `shift`; single pairs are kept."""
    draw = torch.Generator().manual_seed(3)
    moments, kept = {}, {}
    order = list(range(COUNT)) if order is None else order
    for domain in domains or (None,):
        both = torch.randn(2, COUNT, len(LAYERS), WIDTH, generator=draw)
        chosen, rejected = both[0, order] + shift, both[1, order]
        norm = (chosen.norm(dim=-1) + rejected.norm(dim=-1)) / 2
        moments[domain, AT] = Moments.of(chosen, rejected, norm, list(range(COUNT)))
        kept[domain, AT] = KeptPairs(chosen, rejected)
    prints = {domain: (f"print of {domain}",) for domain in domains or (None,)}
    return Activations(moments, LAYERS, prints, None, "packed", kept)


def refusal(name: str, activations: Activations, **options: Any) -> str:
    """What a method says when it refuses."""
    try:
        get_method(name)(activations, **options)
    except RecordingError as error:
        return str(error)
    raise AssertionError(f"{name} does not refuse")


def the_vector_is_finite_at_recorded_layers(name: str) -> None:
    vector = get_method(name)(recording())
    assert set(vector.layers) <= set(LAYERS)
    for layer in vector.layers:
        v = vector.direction(layer)
        assert (v.dtype, tuple(v.shape)) == (torch.float32, (WIDTH,))
        assert float(v.norm()) > 0
        stats = vector.stats[layer]
        assert stats.residual_norm is not None
        assert stats.residual_norm > 0


def the_provenance_says_how_it_was_made(name: str) -> None:
    made = get_method(name)(recording("law", "med"), domain="law").provenance
    assert (made.method, made.domain, made.pairs) == (name, "law", COUNT)
    assert made.pairs_fingerprint == "print of law"
    assert made.arguments["position"] == AT
    assert made.version


def it_points_from_rejected_to_chosen(name: str) -> None:
    activations = recording()
    vector = get_method(name)(activations)
    for layer in vector.layers:
        mean = activations.of().difference[LAYERS.index(layer)]
        assert float(vector.direction(layer).double() @ mean) > 0


def the_order_of_pairs_does_not_matter(name: str) -> None:
    vector = get_method(name)(recording())
    other = get_method(name)(recording(order=list(reversed(range(COUNT)))))
    assert other.layers == vector.layers
    assert math.isclose(vector.cosine(other), 1.0, rel_tol=1e-5)


def it_gives_the_same_again_and_after_a_file(name: str, folder: Path) -> None:
    activations = recording()
    activations.save(folder / "a.safetensors")
    first = get_method(name)(activations)
    first.save(folder / "v.safetensors")
    for again in (
        get_method(name)(activations),
        get_method(name)(Activations.load(folder / "a.safetensors")),
        Vector.load(folder / "v.safetensors"),
    ):
        assert again.provenance == first.provenance
        assert all(torch.equal(again.direction(k), first.direction(k)) for k in first.layers)


def a_domain_is_named_where_there_are_several(name: str) -> None:
    two = recording("law", "med")
    assert "more than one domain" in refusal(name, two)
    assert "'law', 'med'" in refusal(name, two, domain="tax")
    assert get_method(name)(two, domain="med").provenance.domain == "med"


def without_a_difference_there_is_no_vector(name: str) -> None:
    draw = torch.Generator().manual_seed(3)
    same = torch.randn(COUNT, len(LAYERS), WIDTH, generator=draw)
    moments = Moments.of(same, same, same.norm(dim=-1), list(range(COUNT)))
    both = {(None, AT): moments}
    kept = {(None, AT): KeptPairs(same, same)}
    found = Activations(both, LAYERS, {None: ("print",)}, None, "packed", kept)
    assert f"no difference at {AT}" in refusal(name, found)


def single_pairs_are_asked_for_where_they_are_needed(name: str) -> None:
    means = replace(recording(), kept=None)
    if keep_for(name) == "pairs":
        assert "keep='pairs'" in refusal(name, means)
    else:
        kept, there = get_method(name)(recording()), get_method(name)(means)
        assert all(torch.equal(kept.direction(k), there.direction(k)) for k in kept.layers)


LAWS = (
    the_vector_is_finite_at_recorded_layers,
    the_provenance_says_how_it_was_made,
    it_points_from_rejected_to_chosen,
    the_order_of_pairs_does_not_matter,
    a_domain_is_named_where_there_are_several,
    without_a_difference_there_is_no_vector,
    single_pairs_are_asked_for_where_they_are_needed,
)
