"""Restriction, projection, records and immutability of vectors."""

import copy
import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from hypothesis import given

from steer.algebra import (
    Composition,
    Dense,
    Direction,
    DomainGate,
    LayerStats,
    LowRank,
    ModelInfo,
    Part,
    Provenance,
    Residual,
    Tuning,
    Vector,
    Weight,
)
from steer.algebra import _term as terms_
from steer.algebra._site import EMBED
from steer.errors import AlgebraError
from tests.laws.spaces import RESIDUAL_SITES, assert_same, both_kinds, normal, vectors

LLAMA = ModelInfo("llama", None, 8, 3, "config-a", "tok", "template")
OTHER = replace(LLAMA, model_id="other", config="config-b")


def tuned() -> Vector:
    """A vector with every record filled, over both kinds of site."""
    terms = {Residual(layer): Direction(normal(layer, 3)) for layer in (2, 3, 5)}
    return Vector(
        {
            EMBED: Direction(normal(8, 3)),
            **terms,
            Weight("w"): LowRank(normal(1, 4, 1), normal(2, 1, 3)),
        },
        Provenance(
            "palrs", {"layers": [2, 5], "deep": {"a": [1]}}, "medical", 100, "abc", LLAMA, "CC0-1.0"
        ),
        {3: LayerStats(10.0, 0.5, 0.9), 5: LayerStats(20.0)},
        Tuning(3, 0.8),
        DomainGate(("medical",), normal(9, 2, 3), 2),
    )


# -- restriction -----------------------------------------------------------------------------------


@given(vectors(RESIDUAL_SITES))
def test_a_vector_is_the_sum_of_its_sites(u):
    parts = [u[site] for site in u.sites]
    assert [part.sites for part in parts] == [(site,) for site in u.sites]
    assert_same(sum(parts[1:], parts[0]), u)
    assert list(u) == list(u.sites)
    assert len(u) == len(u.sites)
    assert u.layers == tuple(sorted(u.layers))


@pytest.mark.parametrize(
    ("key", "layers"),
    [
        (3, (3,)),
        (-1, (-1,)),
        ("resid_post.5", (5,)),
        ("embed", (-1,)),
        (EMBED, (-1,)),
        (slice(2, 4), (2, 3)),
        (slice(3, None), (3, 5)),
        (slice(0, None), (2, 3, 5)),
        (slice(None), (-1, 2, 3, 5)),
        (slice(None, 3), (-1, 2)),
        (slice(3, 99), (3, 5)),
        (slice(None, None, 2), (2,)),
        (np.int64(3), (3,)),
        (torch.tensor(5), (5,)),
        (slice(np.int64(3), None), (3, 5)),
    ],
)
def test_indexing_restricts_to_layers(key, layers):
    part = tuned()[key]
    assert part.layers == layers
    assert part.sites == tuple(Residual(layer) for layer in layers)
    for layer in layers:
        assert torch.equal(part.direction(layer), tuned().direction(layer))


@pytest.mark.parametrize(
    "key", [slice(-1, None), slice(None, -1), slice(-3, 4), slice(None, None, -1), slice(0.5, 3)]
)
def test_a_range_has_no_negative_bound_since_minus_one_is_the_embedding_output(key):
    assert tuned()[-1].sites == (EMBED,)
    with pytest.raises(AlgebraError, match="range of layers") as error:
        tuned()[key]
    assert "vector[5:]" in str(error.value)


def test_integers_of_a_library_are_layers():
    v = torch.ones(3)
    u = Vector.of({np.int64(4): v, torch.tensor(2): v})
    assert u.layers == (2, 4)
    assert all(type(layer) is int for layer in u.layers)
    assert torch.equal(u.direction(np.int64(4)), v)
    assert DomainGate(("a",), torch.ones(1, 3), np.int64(2)).layer == 2
    with pytest.raises(AlgebraError, match="no such"):
        u[np.float64(4.0)]


@pytest.mark.parametrize(
    "key", [4, 3.0, None, "resid_post.9", slice(6, 9), Weight("x"), "weight:x"]
)
def test_a_site_that_is_not_there(key):
    with pytest.raises(AlgebraError, match="no such site"):
        tuned()[key]
    with pytest.raises(AlgebraError, match="layer 4"):
        tuned().direction(4)


def test_a_missing_summand():
    with pytest.raises(AlgebraError, match="weight sites"):
        _ = tuned().residual.weight
    with pytest.raises(AlgebraError, match="residual sites"):
        _ = tuned().weight.residual
    assert tuned().weight.d_model is None
    assert tuned().weight.layers == ()
    many = Vector.of({layer: torch.ones(1) for layer in range(10)})
    with pytest.raises(AlgebraError, match=r"resid_post\.7 …"):
        many[11]


def test_a_part_keeps_the_records_that_speak_of_it():
    part = tuned()[3:]
    assert part.tuning == Tuning(3, 0.8)
    assert dict(part.stats) == {3: LayerStats(10.0, 0.5, 0.9), 5: LayerStats(20.0)}
    assert part.provenance == tuned().provenance
    assert part.gate is not None
    assert tuned()[5].tuning is None
    assert dict(tuned()[2].stats) == {}
    assert tuned().weight.tuning is None


def test_a_setting_of_all_sites_is_kept_by_the_whole_alone():
    whole = replace(tuned(), tuning=Tuning(None, 0.8))
    assert whole.residual.tuning is None
    assert whole.weight.tuning is None
    alone = replace(tuned().weight, tuning=Tuning(None, 0.8))
    assert alone.weight.tuning == Tuning(None, 0.8)


# -- projection ------------------------------------------------------------------------------------


@given(both_kinds())
def test_what_is_projected_out_is_orthogonal_at_every_site(uvw):
    u, w, _ = uvw
    rest = u.project_out(w)
    assert rest.sites == u.sites
    for site in u.sites:
        if site in w.sites:
            assert rest[site] @ w[site] == pytest.approx(
                0, abs=1e-9 * (1 + u[site].norm()) * (1 + w[site].norm())
            )
            removed = u[site] - rest[site]
            assert abs(removed @ w[site]) == pytest.approx(
                removed.norm() * w[site].norm(), abs=1e-8
            )
        else:
            assert rest.terms[site] is u.terms[site]
    assert_same(rest.project_out(w), rest)


def test_projecting_out_zero_changes_nothing():
    u = Vector.of({0: torch.ones(3)})
    assert torch.equal(u.project_out(0 * u).direction(0), u.direction(0))


# -- records ---------------------------------------------------------------------------------------


def test_a_gate_reads_the_prompt_and_stays_where_one_vector_is_changed():
    u = tuned()
    assert u.gate is not None
    for changed in (2 * u, -u, u / 2, u.truncate(1), u[3]):
        assert changed.gate is u.gate
    assert u.project_out(u[3]).gate is None


def test_a_sum_keeps_what_both_agree_on():
    u = tuned()
    both = u + replace(u, stats={3: LayerStats(30.0), 2: LayerStats(None, 1.0)})
    assert both.provenance == Provenance(
        "combination", {}, "medical", 100, "abc", LLAMA, "CC0-1.0", None
    )
    assert dict(both.stats) == {2: LayerStats(), 3: LayerStats(20.0), 5: LayerStats(20.0)}
    assert both.tuning is None
    assert both.gate is None
    plain = Vector({Residual(3): Direction(normal(0, 3))}, Provenance("x", version="1"))
    assert (u + plain).provenance == Provenance(
        "combination", pairs=100, pairs_fingerprint="abc", model=LLAMA, version="1"
    )


def of_pairs(fingerprint, pairs):
    terms = {Residual(3): Direction(normal(0, 3))}
    return Vector(terms, Provenance("x", pairs=pairs, pairs_fingerprint=fingerprint))


def test_a_sum_counts_the_pairs_of_each_recording_once():
    m, n, unknown = of_pairs("m", 30), of_pairs("n", 20), of_pairs(None, 7)
    assert str((m + m) / 2).splitlines()[0] == "Vector · combination · 30 pairs"
    both = ((m + n) + (m - n) + unknown + m).provenance
    assert both.pairs == 57
    assert both.pairs_fingerprint is None
    assert both.arguments == {"pairs": {"m": 30, "n": 20}}
    assert (unknown + unknown).provenance.pairs == 14
    assert (m + unknown).provenance.pairs_fingerprint is None
    assert (m + unknown + m).provenance.pairs == 37


def test_sum_adds_vectors():
    u, w = tuned(), of_pairs("m", 30)
    assert_same(sum([u, w, w]), u + w + w)
    assert sum([u]) is u
    for number in (1, "0", False):
        with pytest.raises(TypeError):
            number + u


def test_a_multiple_scales_the_error_and_forgets_the_tuning():
    scaled = -2 * tuned()
    assert dict(scaled.stats) == {3: LayerStats(10.0, 1.0, 0.9), 5: LayerStats(20.0)}
    assert scaled.tuning is None


def test_what_is_done_to_a_vector_stands_in_its_record():
    u = tuned()
    assert (-u).provenance.arguments["forms"] == ("scale(-1.0)",)
    assert "scale(-0.3)" in str(-0.3 * u)
    assert (-0.3 * u).provenance.arguments["layers"] == (2, 5)
    assert (u / 2 * 3).provenance.arguments["forms"] == ("scale(1.5)",)
    assert (u * 2 * 0.5).provenance == u.provenance == (1 * u).provenance
    there = -u
    assert (-there).provenance == u.provenance
    changed = (there.truncate(1) * 2).provenance
    assert changed.arguments["forms"] == ("scale(-1.0)", "truncate(rank=1)", "scale(2.0)")
    assert (1e-30 * (1e-7 * u)).provenance.arguments["forms"] == (f"scale({1e-30 * 1e-7!r})",)


def test_a_vector_for_another_model_says_which_one_it_was_made_for():
    moved = tuned().for_model(OTHER)
    assert moved.provenance.model == OTHER
    assert moved.provenance.arguments["made_for"]["model_id"] == "llama"
    assert moved.provenance.pairs == 100
    assert_same(moved, tuned())
    again = moved.for_model(LLAMA).provenance
    assert (again.model, again.arguments["made_for"]["model_id"]) == (LLAMA, "llama")
    assert tuned().for_model(LLAMA).provenance == tuned().provenance
    plain = of_pairs("m", 30)
    assert "made_for" not in plain.for_model(OTHER).provenance.arguments
    both = (plain.for_model(OTHER) + moved).provenance
    assert both.arguments["made_for"]["model_id"] == "llama"


@pytest.mark.parametrize("change", [lambda u: u + u, lambda u: u.project_out(u[3])])
def test_a_changed_direction_has_no_error_bars(change):
    changed = change(tuned())
    assert dict(changed.stats) == {3: LayerStats(10.0), 5: LayerStats(20.0)}
    assert changed.tuning is None


def test_truncation_leaves_directions_and_their_records_alone():
    short = tuned().truncate(1)
    assert dict(short.stats) == dict(tuned().stats)
    assert short.tuning is None


def test_vectors_of_different_models_do_not_combine():
    u, w = (
        Vector({Residual(0): Direction(normal(0, 3))}, Provenance(model=m)) for m in (LLAMA, OTHER)
    )
    for operation in (lambda: u + w, lambda: u - w, lambda: u.project_out(w)):
        with pytest.raises(AlgebraError, match="llama and other"):
            operation()


def test_the_relative_norm_is_measured_against_the_residual_stream():
    u = Vector(
        {Residual(0): Direction(torch.tensor([3.0, 4.0])), Residual(1): Direction(torch.ones(2))},
        stats={0: LayerStats(residual_norm=20.0)},
    )
    assert u.relative_norm(0) == 0.25
    assert u.relative_norm(1) is None
    with pytest.raises(AlgebraError):
        u.relative_norm(2)


# -- immutability ----------------------------------------------------------------------------------


def test_nothing_can_be_assigned():
    u = tuned()
    for record, name in (
        (u, "terms"),
        (u.provenance, "method"),
        (u.tuning, "layer"),
        (u.gate, "margin"),
        (u.stats[3], "residual_norm"),
        (u.terms[Residual(3)], "v"),
        (u.terms[Weight("w")], "B"),
        (Residual(3), "layer"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(record, name, getattr(record, name))
    for mapping in (u.terms, u.stats, u.provenance.arguments, u.provenance.arguments["deep"]):
        with pytest.raises(TypeError):
            mapping["x"] = 1
    with pytest.raises(TypeError):
        u[3] = u[3]


def test_what_it_was_built_from_can_change_without_it():
    arguments = {"layers": [1, 2], "deep": {"a": 1}}
    terms, stats = {Residual(0): Direction(torch.ones(2))}, {0: LayerStats(1.0)}
    u = Vector(terms, Provenance(arguments=arguments), stats)
    terms.clear(), stats.clear(), arguments["layers"].append(3), arguments["deep"].clear()
    assert u.layers == (0,)
    assert u.stats[0] == LayerStats(1.0)
    assert u.provenance.arguments["layers"] == (1, 2)
    assert u.provenance.arguments["deep"] == {"a": 1}


def test_a_tensor_that_is_written_to_afterwards_changes_no_frozen_value():
    v, centroids, rows = torch.ones(3), torch.ones(1, 3), torch.ones(1, 1)
    u, gate = Vector.of({0: v}), DomainGate(("a",), centroids, 0)
    knobs = Composition({"a": Part(u)}, rows)
    for tensor in (v, centroids, rows):
        tensor.fill_(float("nan"))
    assert u.norm() == pytest.approx(3**0.5)
    assert bool(gate.centroids.isfinite().all())
    assert knobs.coefficients.tolist() == [[1.0]]


def test_the_parts_of_a_composition_are_frozen_and_pickled():
    knobs = Composition({"a": Part(Vector.of({0: torch.ones(3)}))}, torch.ones(1, 1))
    with pytest.raises(TypeError):
        knobs.parts["b"] = knobs.parts["a"]
    for twin in (copy.deepcopy(knobs), pickle.loads(pickle.dumps(knobs))):
        assert twin.domains == ("a",)
        assert torch.equal(twin.coefficients, knobs.coefficients)
        assert_same(twin.parts["a"].vector, knobs.parts["a"].vector)


@given(both_kinds())
def test_no_operation_writes_into_its_operands(uvw):
    u, v, _ = uvw
    before = [t.clone() for w in (u, v) for term in w.terms.values() for t in tensors_of(term)]
    for operation in (
        lambda: u + v,
        lambda: u - v,
        lambda: 3 * u,
        lambda: -u,
        lambda: u.project_out(v),
        lambda: u.truncate(1),
        lambda: u.to(dtype=torch.float32),
        lambda: u[u.sites[0]] @ u[u.sites[0]],
    ):
        operation()
    after = [t for w in (u, v) for term in w.terms.values() for t in tensors_of(term)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def tensors_of(term):
    return terms_.tensors(term).values()


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda u: pickle.loads(pickle.dumps(u))]
)
def test_copies_are_equal(copied):
    u, twin = tuned(), copied(tuned())
    assert twin.sites == u.sites
    for site in u.sites:
        pairs = zip(tensors_of(u.terms[site]), tensors_of(twin.terms[site]), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert twin.provenance == u.provenance
    assert dict(twin.stats) == dict(u.stats)
    assert twin.tuning == u.tuning
    assert torch.equal(twin.gate.centroids, u.gate.centroids)


def test_a_deep_copy_shares_no_memory():
    u = tuned()
    twin = copy.deepcopy(u)
    assert twin.direction(3).data_ptr() != u.direction(3).data_ptr()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_conversion_changes_the_dtype_of_every_tensor(dtype):
    converted = tuned().to(dtype=dtype)
    found = {t.dtype for term in converted.terms.values() for t in tensors_of(term)}
    assert found == {dtype}
    assert torch.equal(converted.direction(3), tuned().direction(3).to(dtype))
    assert converted.tuning == tuned().tuning


def test_dense_terms_print_their_shapes():
    assert Dense(torch.ones(2, 3, 4)).shape == (2, 3, 4)
    assert LowRank(torch.ones(2, 1), torch.ones(1, 3)).shape == (2, 3)
