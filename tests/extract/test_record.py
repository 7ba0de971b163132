import math
from collections.abc import Iterator

import pytest
import torch

from steer.errors import ArgumentError, RecordingError
from steer.extract import POSITIONS, Activations, record
from steer.network import Exchange
from steer.pairs import Pair, Pairs
from tests.extract.reference import EVERYWHERE, off, some_pairs, textbook, tiny
from tests.tiny import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_textbook_in_float64(family: str) -> None:
    model, pairs = tiny(family), some_pairs()
    found = record(model, pairs, EVERYWHERE, progress=False)
    assert found.layers == (0, 1, 2, 3)
    assert found.domains == ("law", "med")
    assert found.positions == ("template[-2]", "template[-1]", *EVERYWHERE[1:])
    for (domain, position), moments in found.moments.items():
        expected = textbook(model, pairs, domain, position)
        assert moments.count == len(expected.chosen)
        assert moments.second.dtype == torch.float64
        assert off(moments.mean_chosen, expected.chosen.mean(dim=0)) < 1e-5
        assert off(moments.mean_rejected, expected.rejected.mean(dim=0)) < 1e-5
        assert torch.allclose(moments.norm, expected.norms.mean(dim=0), rtol=1e-5)
        if position == "prompt_last":
            continue  # the same token on both sides: see below
        assert off(moments.difference, expected.difference) < 1e-5
        assert off(moments.standard_error, expected.standard_error) < 1e-5
        cosine = expected.split_half_cosine
        assert torch.allclose(moments.split_half_cosine, cosine, atol=1e-4)


@pytest.mark.parametrize("packing", [True, False])
def test_float64_models_are_exact(packing: bool) -> None:
    model, pairs = tiny(dtype=torch.float64), some_pairs()
    found = record(model, pairs, EVERYWHERE, progress=False, packing=packing, max_tokens=100)
    for (domain, position), moments in found.moments.items():
        if position != "prompt_last":
            expected = textbook(model, pairs, domain, position)
            assert off(moments.difference, expected.difference) < 1e-12
            assert off(moments.standard_error, expected.standard_error) < 1e-12


def test_the_last_prompt_token_is_the_same_for_both_answers() -> None:
    found = record(tiny(), some_pairs(domains=(None,)), "prompt_last", progress=False)
    moments = found.of()
    assert moments.mean_chosen.norm() > 0
    assert moments.difference.norm() == moments.second.norm() == 0
    assert moments.split_half_cosine.isnan().all()


def test_one_pair_has_no_error_bars() -> None:
    moments = record(tiny(), some_pairs(1, (None,)), "response_mean", progress=False).of()
    assert moments.count == 1
    assert moments.standard_error.isnan().all()
    assert moments.split_half_cosine.isnan().all()
    assert moments.difference.isfinite().all()


def test_template_tokens_and_the_mean_of_the_response_are_read_by_default() -> None:
    model, pairs = tiny(), some_pairs()
    found = record(model, pairs, progress=False)
    assert found.positions[-1] == "response_mean"
    named = record(model, pairs, at=["template", "response_mean"], progress=False)
    assert found.positions == named.positions
    assert len(found.positions) == 1 + len(record(model, pairs, "template").positions)
    for key, moments in found.moments.items():
        assert off(moments.difference, named.moments[key].difference) == 0


def test_some_layers_equal_the_same_layers_of_all() -> None:
    model, pairs = tiny(), some_pairs()
    every = record(model, pairs, progress=False)
    some = record(model, pairs, layers=[2, 0], progress=False)
    assert some.layers == (0, 2)
    for key, moments in some.moments.items():
        assert off(moments.difference, every.moments[key].difference[[0, 2]]) < 1e-5


def test_bfloat16_states_are_averaged_in_float64() -> None:
    model, pairs = tiny(dtype=torch.bfloat16), some_pairs(5, (None,))
    alone = record(model, pairs, "response_mean", progress=False, packing=False, max_tokens=1)
    expected = textbook(model, pairs, None, "response_mean")
    assert off(alone.of().difference, expected.difference) < 1e-12
    packed = record(model, pairs, "response_mean", progress=False)
    assert packed.path == "packed"
    assert off(packed.of().mean_chosen, expected.chosen.mean(dim=0)) < 0.05


def test_one_template_token_is_recorded_alone() -> None:
    model, pairs = tiny(), some_pairs()
    every = record(model, pairs, "template", progress=False)
    found = record(model, pairs, ["response_mean", "template[-1]"], progress=False)
    assert found.positions == ("response_mean", "template[-1]")
    for domain in every.domains:
        one, same = (a.of(domain, "template[-1]") for a in (found, every))
        assert off(one.difference, same.difference) < 1e-5
    with pytest.raises(RecordingError, match="template has no such token"):
        record(model, pairs, "template[-90]", progress=False)


def second_word(exchange: Exchange) -> list[int]:
    return [exchange.response_start, exchange.response_start + 1]


def test_a_function_names_its_tokens() -> None:
    model, pairs = tiny(), some_pairs(5, (None,))
    found = record(model, pairs, ["response_first", second_word], progress=False)
    assert found.positions == ("response_first", "second_word")
    first, both = found.of(position="response_first"), found.of(position="second_word")
    assert off(both.mean_chosen, first.mean_chosen) > 0.1

    def first_of_two(exchange: Exchange) -> tuple[int, ...]:
        return (second_word(exchange)[0],)

    again = record(model, pairs, first_of_two, progress=False).of()
    assert off(again.difference, first.difference) < 1e-5


@pytest.mark.parametrize("tokens", [[], [10_000], [-1], ["1"]])
def test_a_function_that_names_no_usable_token_is_refused(tokens: list[int]) -> None:
    def position(exchange: Exchange) -> list[int]:
        return tokens

    with pytest.raises(RecordingError, match="pair 0"):
        record(tiny(), some_pairs(2), position, progress=False)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("last", "no such position"),
        (["template", "template"], "twice"),
        ([], "no position"),
        (3, "no such position"),
        ([3], "no such position"),
        ([second_word, second_word], "twice"),
        (["template", "template[-1]"], "twice"),
        (["template[-1]", "template"], "twice"),
        ("template[0]", "no such position"),
    ],
)
def test_positions_that_make_no_sense_are_refused(at: object, said: str) -> None:
    with pytest.raises(RecordingError, match=said) as caught:
        record(tiny(), some_pairs(2), at, progress=False)  # type: ignore[arg-type]
    assert all(name in str(caught.value) for name in POSITIONS)


def test_what_cannot_be_recorded_is_refused() -> None:
    model, pairs = tiny(), some_pairs(2)
    with pytest.raises(RecordingError, match="no pairs"):
        record(model, Pairs.of([]), progress=False)
    for layers in ([], [4], [-1]):
        with pytest.raises(RecordingError, match="layers from 0 to 3"):
            record(model, pairs, layers=layers, progress=False)
    for layers in (2, "12", [1.5], ["1"], [True]):
        with pytest.raises(ArgumentError, match="layers must be"):
            record(model, pairs, layers=layers, progress=False)  # type: ignore[arg-type]
    for most in (0, -1, 1.5):
        with pytest.raises(ArgumentError, match="max_tokens"):
            record(model, pairs, max_tokens=most, progress=False)  # type: ignore[arg-type]
    model.hf_model.train()
    with pytest.raises(RecordingError, match="training mode"):
        record(model, pairs, progress=False)


def test_a_text_longer_than_the_positions_is_refused() -> None:
    model = tiny("gpt2", n_positions=30)
    long = Pairs.of([Pair("Why?", "price " * 20, "rate")])
    with pytest.raises(RecordingError, match="at most 30"):
        record(model, long, "response_mean", progress=False)


def test_values_that_are_not_finite_are_refused() -> None:
    model = tiny()
    with torch.no_grad():
        model.architecture.blocks[2].mlp.down_proj.weight.mul_(math.inf)  # type: ignore[union-attr,operator]
    with pytest.raises(RecordingError, match="layer 2"):
        record(model, some_pairs(2), "response_mean", progress=False, packing=False)


def test_a_template_that_ends_with_the_response_has_no_template_position() -> None:
    model = tiny()
    before = model.tokenizer.chat_template
    model.tokenizer.chat_template = "{{ bos_token }}{{ messages[0]['content'] }}"
    try:
        with pytest.raises(RecordingError, match="template alone"):
            record(model, some_pairs(2), progress=False)
    finally:
        model.tokenizer.chat_template = before


def test_plain_rows_of_pairs_are_taken_too() -> None:
    model, pairs = tiny(), some_pairs(3)
    for given in (list(pairs), iter(pairs)):
        assert repr(record(model, given, progress=False)) == repr(
            record(model, pairs, progress=False)
        )


class Counted(tuple[Pair, ...]):
    """Counts how often it is gone through."""

    times = 0

    def __iter__(self) -> Iterator[Pair]:
        Counted.times += 1
        return super().__iter__()


def test_pairs_are_gone_through_as_often_whatever_the_number_of_domains() -> None:
    found = []
    for domains in (2, 12):
        pairs = some_pairs(12, tuple(f"domain {k}" for k in range(domains)))
        counted, Counted.times = Pairs(Counted(pairs.items)), 0
        activations = record(tiny(), counted, "template[-1]", layers=[0], progress=False)
        found.append(Counted.times)
        for name in pairs.domains:
            assert activations.pairs_fingerprints[name] == pairs.of_domain(name).fingerprint
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def recorded() -> Activations:
    return record(tiny(), some_pairs(), ["template", "response_mean"], progress=False)


def test_what_is_meant_may_be_left_out_only_if_there_is_one(recorded: Activations) -> None:
    with pytest.raises(RecordingError, match="more than one domain"):
        recorded.of(position="response_mean")
    with pytest.raises(RecordingError, match="more than one position"):
        recorded.of("law")
    with pytest.raises(RecordingError, match="no such domain") as caught:
        recorded.of("finance", "response_mean")
    assert "'law', 'med'" in str(caught.value)
    assert recorded.of("law", "response_mean").count == 4


def test_it_prints_what_it_holds(recorded: Activations) -> None:
    text = repr(recorded)
    assert text.startswith("Activations · 7 pairs · layers 0–3 · d_model 32 · packed")
    assert len(text.splitlines()) == 4 + 2 * 3
    assert "response_mean" in text


def test_it_knows_pairs_and_model(recorded: Activations) -> None:
    law = some_pairs().of_domain("law")
    assert recorded.pairs_fingerprints["law"] == law.fingerprint
    assert recorded.model == tiny().info
