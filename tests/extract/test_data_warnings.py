"""Pairs that make no vector that steers are warned of, and healthy ones are not."""

import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from steer.algebra import Vector
from steer.demo import load_model
from steer.demo.language import pairs as demo_pairs
from steer.errors import DataWarning, VectorFileError
from steer.extract import Activations, mean_difference, palrs, record
from steer.extract._moments import Moments
from steer.extract._responses import Responses
from steer.pairs import Pair, Pairs
from tests.extract.reference import WORDS, some_pairs, tiny

LETTERS = "only 2 different texts"
FIXED = "hardly depends on the prompt"
LENGTH = "by a factor of two or more"
NOISE = "error/norm is above 0.5"
SHUFFLED = "label-shuffled controls"
BLIND = "do not differ at"
D_MODEL = 32


def question(k: int) -> str:
    return f"{' '.join(WORDS[int(digit)] for digit in str(k))}?"


def letters(count: int, first_chosen: int, texts: tuple[str, str] = ("(A)", " (B)")) -> Pairs:
    """Pairs of two responses; the first of them is chosen so many times, spread over all pairs."""
    order = [
        texts if k * first_chosen % count < first_chosen else texts[::-1] for k in range(count)
    ]
    return Pairs.of(Pair(question(k), *answers) for k, answers in enumerate(order))


def texts(count: int, chosen: int, rejected: int) -> Pairs:
    """Pairs of different responses of so many words."""

    def text(k: int, words: int) -> str:
        return " ".join(WORDS[(k * 7 + 3 * w + k // 10) % 10] for w in range(words))

    return Pairs.of(
        Pair(question(k), f"{text(k, chosen)} {k}.", f"no {text(k + 1, rejected - 1)} {k}.")
        for k in range(count)
    )


def recorded(pairs: Pairs, at: object = "response_mean", **options: object) -> Activations:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return record(tiny(), pairs, at, progress=False, **options)  # type: ignore[arg-type]


def said(activations: Activations) -> list[str]:
    """Which of the sentences a recording says, shortened."""
    known = (LETTERS, FIXED, LENGTH, NOISE, SHUFFLED, BLIND)
    found = [[mark for mark in known if mark in sentence] for sentence in activations.warnings]
    assert all(len(marks) == 1 for marks in found), activations.warnings
    return [marks[0] for marks in found]


def made_of(differences: torch.Tensor) -> Activations:
    """A recording of given differences `[pair d_model]` at four equal layers."""
    d = differences.double()[:, None].expand(-1, 4, -1)
    base = torch.full_like(d, 0.5)
    moments = Moments.of(base + d, base, base[..., 0] + 1, list(range(len(d))))
    return Activations({(None, "here"): moments}, (0, 1, 2, 3), {None: ("a",)}, None, "packed")


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_letters_are_warned_of_once_on_screen_in_the_card_and_in_that_of_the_vector(
    tmp_path: Path,
) -> None:
    with pytest.warns(DataWarning) as caught:
        activations = record(tiny(), letters(24, 14), "response_mean", progress=False)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "the 48 responses are only 2 different texts ('a', 'b')" in str(caught[0].message)
    assert issubclass(DataWarning, UserWarning)
    activations.save(tmp_path / "a.safetensors")
    for found in (activations, Activations.load(tmp_path / "a.safetensors")):
        assert said(found) == said(activations)
        assert LETTERS in said(found)
        assert "only 2 different texts" in " ".join(repr(found).split())
    for vector in (mean_difference(activations)[2], palrs(activations)):
        vector.save(tmp_path / "v.safetensors")
        for kept in (vector, Vector.load(tmp_path / "v.safetensors"), -2 * vector + vector):
            assert any(LETTERS in sentence for sentence in kept.provenance.warnings)
            assert "only 2 different texts" in " ".join(repr(kept).split())
            assert "warnings=" not in repr(kept)


def test_letters_whose_sign_varies_are_parallel_to_their_controls() -> None:
    activations = recorded(letters(60, 34), ["template", "response_mean"])
    assert {LETTERS, SHUFFLED} <= set(said(activations))
    assert FIXED not in said(activations)


@pytest.mark.parametrize("answers", [(" Yes", " No"), ("I agree.", "I do not agree at all.")])
@pytest.mark.parametrize(("chosen", "warned"), [(20, True), (16, True), (15, False), (4, True)])
def test_a_response_that_is_nearly_always_chosen_is_named(
    answers: tuple[str, str], chosen: int, warned: bool
) -> None:
    activations = recorded(letters(20, chosen, answers))
    assert (FIXED in said(activations)) is warned
    if warned and answers[0] == " Yes":
        often = max(chosen, 20 - chosen)
        name = "yes" if often == chosen else "no"
        expected = f"'{name}' is chosen {often} times and rejected {20 - often} times"
        assert any(expected in sentence for sentence in activations.warnings)


@pytest.mark.parametrize("swapped", [False, True])
def test_responses_of_very_different_length_are_named(swapped: bool) -> None:
    for words, warned in ((12, True), (6, False)):
        pairs = texts(20, words, 4)
        activations = recorded(pairs.swap() if swapped else pairs)
        assert (LENGTH in said(activations)) is warned
        if warned:
            side = "shorter" if swapped else "longer"
            assert f"much {side} than the rejected one in 20 of 20 pairs" in repr(activations)


def test_prompt_tokens_see_nothing_of_the_responses() -> None:
    activations = recorded(texts(20, 5, 5), ["prompt_last", "response_mean"])
    assert said(activations)[0] == BLIND
    assert "do not differ at prompt_last:" in activations.warnings[0]
    assert BLIND not in said(recorded(texts(20, 5, 5), ["template", "response_mean"]))
    with pytest.warns(DataWarning, match="do not differ at prompt_last"):
        record(tiny(), texts(20, 5, 5), "prompt_last", progress=False)


def test_noise_is_named_where_no_layer_is_better() -> None:
    noise = draws(40, D_MODEL)
    assert NOISE in said(made_of(noise))
    shift = torch.zeros(D_MODEL, dtype=torch.float64)
    shift[0] = 3.0  # error/norm is near √(32/40) / 3.1 = 0.29
    assert said(made_of(noise + shift)) == []
    mixed = made_of(noise).moments[None, "here"]
    good = made_of(noise + shift).moments[None, "here"]
    one = {
        name: torch.cat([getattr(mixed, name)[:3], getattr(good, name)[3:]])
        for name in ("mean_chosen", "mean_rejected", "second", "norm")
    }
    activations = made_of(noise)
    both = replace(activations, moments={(None, "here"): replace(mixed, shuffled=None, **one)})
    assert said(both) == []
    places = {(None, "here"): made_of(noise).of(), (None, "there"): made_of(noise + shift).of()}
    assert said(replace(both, moments=places)) == []  # the better position can be chosen
    vector = mean_difference(both)
    assert "error/norm is above 0.5 at layers 0–2." in repr(vector)
    assert "error/norm is above" not in repr(vector[3])
    assert "error/norm is above 0.5 at layer 1." in repr(vector[1])


def test_pairs_that_differ_along_one_line_with_either_sign_are_named() -> None:
    line = draws(D_MODEL)
    sign = torch.tensor([1.0, 1.0, 1.0, -1.0]).repeat(10)[:, None]
    assert SHUFFLED in said(made_of(sign * line + 0.1 * draws(40, D_MODEL)))


def test_pairs_that_agree_are_not_taken_for_letters() -> None:
    """Random labels alone would make a control that is parallel to their direction."""
    line = draws(D_MODEL)
    lengths = 1 + 0.3 * draws(40, 1, seed=1)
    for differences in (lengths * line, line + 0.1 * draws(40, D_MODEL), line.expand(40, -1)):
        assert said(made_of(differences)) == []


def test_the_cosine_with_controls_is_the_share_of_variance_along_the_mean() -> None:
    scale = torch.linspace(3.0, 0.5, D_MODEL, dtype=torch.float64)
    for axis in (0, D_MODEL - 1):
        shift = torch.zeros(D_MODEL, dtype=torch.float64)
        shift[axis] = 5.0
        d = scale * draws(400, D_MODEL) + shift
        found = made_of(d).moments[None, "here"]
        assert found.shuffled is not None
        mean = d.mean(dim=0)
        along = (d - mean) @ mean / mean.norm()
        expected = along.square().sum() / (d - mean).square().sum()
        cosine = found.shuffled.cosine(found.difference)
        assert cosine.shape == (4,)
        # the mean of 16 squared normal numbers: a standard deviation of √(2/16) = 0.35
        torch.testing.assert_close(cosine.square(), expected.expand(4), rtol=0.7, atol=0)
    line = made_of((1 + draws(40, 1)) * shift).moments[None, "here"]
    assert line.shuffled is not None
    torch.testing.assert_close(line.shuffled.cosine(line.difference), torch.ones(4).double())


def test_controls_do_not_depend_on_batches() -> None:
    pairs = texts(30, 5, 5)
    one, many = (recorded(pairs, max_tokens=n) for n in (10_000, 20))
    for key, moments in one.moments.items():
        a, b = moments.shuffled, many.moments[key].shuffled
        assert a is not None
        assert b is not None
        assert a.signs == b.signs
        torch.testing.assert_close(a.sums, b.sums, rtol=1e-4, atol=1e-5)


def test_nothing_is_said_of_few_pairs() -> None:
    for pairs in (letters(7, 7), texts(19, 12, 3)):
        assert record(tiny(), pairs, ["prompt_last", "template"], progress=False).warnings == ()


def test_few_texts_are_warned_of_in_few_pairs_too() -> None:
    """Eighteen pairs of two letters hold two texts whatever chance does."""
    found = recorded(letters(18, 18)).warnings
    assert len(found) == 1
    assert LETTERS in found[0]


def test_the_demo_pairs_are_not_warned_of() -> None:
    pairs = demo_pairs("medical", 40) + demo_pairs("legal", 40)
    found = record(load_model(), pairs, ["template", "response_mean"], progress=False)
    assert found.warnings == ()
    assert "Warning" not in repr(found) + repr(palrs(found, domain="legal"))


def test_domains_are_named_where_there_are_several() -> None:
    pairs = letters(20, 10).with_domain("law") + texts(20, 5, 5).with_domain("med")
    found = recorded(pairs)
    named = {sentence.split(": ")[0] for sentence in found.warnings if LETTERS in sentence}
    assert named == {"law"}


def test_a_sum_is_warned_of_as_the_whole() -> None:
    pairs = letters(40, 22)
    first, second = recorded(pairs[:7]), recorded(pairs[7:])
    assert first.warnings == ()
    assert said(first + second) == said(recorded(pairs))
    mixed = first + recorded(texts(30, 5, 5))
    assert LETTERS not in said(mixed)
    apart = first + recorded(texts(30, 5, 5).with_domain("law"))
    assert set(apart.responses) == {None, "law"}
    unknown = replace(second, responses={})
    assert (first + unknown).responses == {}


def test_responses_are_compared_by_letters_and_digits() -> None:
    same = Responses.of([("(A)", " b."), ("a", "B"), ("?!", "…")])
    assert same.counts == {"a": (2, 0), "b": (0, 2), "?!": (1, 0), "…": (0, 1)}
    assert pickle.loads(pickle.dumps(same)) == same
    eight = Responses.of((str(k), str(k + 1)) for k in range(7))
    assert len(eight.counts or ()) == 8
    assert Responses.of((str(k), str(k + 1)) for k in range(8)).counts is None
    assert eight.join(same).counts is None
    assert same.join(same).counts == {"a": (4, 0), "b": (0, 4), "?!": (2, 0), "…": (0, 2)}


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (Responses(20, 21, 0, None), "much_longer"),
        (Responses(20, 15, 6, None), "much_shorter"),
        (Responses(20, 0, 0, {"a": (20, 0), "b": (0, 19)}), "20 times chosen and rejected"),
        (Responses(2, 0, 0, {"": (2, 0), "b": (0, 2)}), "counts.0.text"),
    ],
)
def test_counts_that_cannot_be_are_not_saved(
    counts: Responses, message: str, tmp_path: Path
) -> None:
    activations = recorded(some_pairs(3, (None,)))
    with pytest.raises(VectorFileError, match=message):
        replace(activations, responses={None: counts}).save(tmp_path / "a.safetensors")


def test_controls_that_cannot_be_are_not_saved(tmp_path: Path) -> None:
    activations = recorded(some_pairs(3, (None,)))
    (key,) = activations.moments
    moments = activations.moments[key]
    assert moments.shuffled is not None
    for signs in ((3,) * 15, (5,) * 16, (2,) * 16):
        wrong = replace(moments, shuffled=replace(moments.shuffled, signs=signs))
        with pytest.raises(VectorFileError, match="signs"):
            replace(activations, moments={key: wrong}).save(tmp_path / "a.safetensors")


def test_a_file_of_version_1_knows_neither_texts_nor_controls() -> None:
    path = Path(__file__).parents[1] / "store" / "golden" / "recording-version-1.safetensors"
    old = Activations.load(path)
    assert old.responses == {}
    assert all(moments.shuffled is None for moments in old.moments.values())
    assert old.warnings == ()
