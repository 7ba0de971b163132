"""The screen: predicted slopes are derivatives, predicted curvature is that of the KL."""

import statistics

import pytest
import torch

import steer
from steer.engine._gradients import text_gradients
from steer.model import exchange_batch
from steer.selection._candidates import Candidate, candidates_of
from steer.selection._screen import _RULES, screen, unscreened
from tests.letters import letter_pairs, noise_and_planted, planted
from tests.tiny import tiny_model, tiny_tokenizer
from tests.weights import everywhere

NEUTRAL = ("how are you", "what is it", "a b c", "b c a", "c a b", "x y z")


@pytest.fixture(scope="module")
def lm() -> steer.Model:
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.fixture(scope="module")
def double() -> steer.Model:
    return steer.Model(tiny_model("llama").double(), tiny_tokenizer())


@pytest.fixture(scope="module")
def vectors(lm: steer.Model) -> dict[str, steer.Vector]:
    return noise_and_planted(lm)


def margins(lm: steer.Model, pairs: steer.Pairs, reduce: str) -> torch.Tensor:
    """The margin of each pair in float64, from the logits."""
    prompts = [pair.prompt for pair in pairs] * 2
    answers = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    batch = exchange_batch(lm.chat, prompts, answers)
    scores = []
    whole = zip(lm.logits(prompts, answers), batch.ids, batch.prompt_lengths, strict=True)
    for logits, ids, start in whole:
        table = torch.log_softmax(logits.double(), dim=-1)
        own = table.gather(1, torch.tensor(ids[start:])[:, None])
        scores.append(own.mean() if reduce == "mean" else own.sum())
    chosen, rejected = torch.stack(scores).chunk(2)
    return chosen - rejected


@pytest.mark.parametrize("operator", sorted(_RULES))
@pytest.mark.parametrize("scope", ["all", "prompt", "response", "last_prompt"])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_a_predicted_slope_is_the_derivative_of_the_margin(
    double: steer.Model, vectors: dict[str, steer.Vector], operator: str, scope: str, reduce: str
) -> None:
    """A one-sided difference of third order: norms and rotations are float32 even in this model.

    Scores of a few nats are known to about 1e-6, so the difference to 22/6 · 1e-6 / h; its own
    error is h³/4 of a fourth derivative.
    """
    check_slopes(double, candidates_of(vectors["noise"], None, operator, scope, None), reduce)


def check_slopes(
    double: steer.Model, given: list[Candidate], reduce: str = "mean"
) -> list[torch.Tensor]:
    """Compare predicted slopes with differences of margins; return them."""
    pairs, h = letter_pairs(4), 0.01
    text = steer.neutral_text(double, NEUTRAL[:2], max_new_tokens=4)
    found = screen(double, given, pairs, text, reduce, 0, False)  # type: ignore[arg-type]
    base = margins(double, pairs, reduce)
    for candidate, prediction in zip(given, found, strict=True):
        moved = []
        for c in (h, 2 * h, 3 * h):
            with double.steered(candidate.composition, c):
                moved.append(margins(double, pairs, reduce))
        expected = (18 * moved[0] - 9 * moved[1] + 2 * moved[2] - 11 * base) / (6 * h)
        scale = float(prediction.slopes.abs().max())
        torch.testing.assert_close(
            prediction.slopes, expected, rtol=2e-3, atol=2e-3 * max(scale, 1.0)
        )
    return [prediction.slopes for prediction in found]


@pytest.fixture(scope="module")
def gate(double: steer.Model) -> steer.DomainGate:
    """Opens for two of four questions and for some neutral prompts."""
    prompts = {"vector": ["question 0", "question 2"], "other": ["question 1", "question 3"]}
    return steer.domain_gate(double, prompts, layer=0, progress=False)


@pytest.mark.parametrize("operator", sorted(_RULES))
@pytest.mark.parametrize("scope", ["all", "response"])
def test_a_gate_multiplies_the_slope(
    double: steer.Model,
    vectors: dict[str, steer.Vector],
    gate: steer.DomainGate,
    operator: str,
    scope: str,
) -> None:
    given = candidates_of(vectors["noise"], None, operator, scope, gate)
    assert not any(unscreened(double, candidate) for candidate in given)
    for slopes in check_slopes(double, given):
        assert (slopes != 0).tolist() == [True, False, True, False]


def weight_vectors(lm: steer.Model) -> dict[str, steer.Vector]:
    """Differences at weights of every form, dense and of low rank, alone and beside the stream."""
    hf = lm.hf_model
    matrix = "model.layers.1.mlp.down_proj.weight"
    noise = torch.randn(
        hf.get_parameter(matrix).shape, generator=torch.Generator().manual_seed(0)
    ).double()
    dense = {steer.Weight(matrix): steer.Dense(0.05 * noise)}
    stream = {steer.Residual(k): steer.Direction(noise[:, k]) for k in (0, 2)}
    every = everywhere(hf, size=0.1)
    return {
        "dense": steer.Vector(dense),
        "every": every,
        "head": everywhere(hf, size=0.1, keep=lambda name: "lm_head" in name or "norm" in name),
        "both": steer.Vector({**stream, **dense}),
    }


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_the_slope_of_weights_is_the_derivative_in_their_coefficient(
    double: steer.Model, reduce: str
) -> None:
    given = candidates_of(weight_vectors(double), None, None, None, None)
    assert [unscreened(double, candidate) for candidate in given] == [""] * 4
    assert all(bool(slopes.any()) for slopes in check_slopes(double, given, reduce))


@pytest.mark.parametrize("scope", ["prompt", "response", "last_prompt"])
def test_the_slope_of_weights_sees_scope_and_gate(
    double: steer.Model, gate: steer.DomainGate, scope: str
) -> None:
    low_rank = {k: v for k, v in weight_vectors(double).items() if k in ("every", "head")}
    check_slopes(double, candidates_of(low_rank, None, None, scope, None))
    gated = check_slopes(double, candidates_of(low_rank, None, None, scope, gate))
    assert (gated[0] != 0).tolist() == [True, False, True, False]


def test_the_slope_at_several_layers_is_that_of_the_whole(
    double: steer.Model, vectors: dict[str, steer.Vector]
) -> None:
    whole = Candidate("whole", steer.compose(vector=vectors["noise"]))
    assert unscreened(double, whole) == ""
    check_slopes(double, [whole])


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "olmo2"])
def test_the_slope_of_weights_holds_in_other_models(family: str) -> None:
    lm = steer.Model(tiny_model(family).double(), tiny_tokenizer())
    vector = everywhere(lm.hf_model, size=0.05)
    check_slopes(lm, candidates_of(vector, None, None, None, None))


@pytest.mark.parametrize("kind", ["planted", "gated", "every"])
def test_the_predicted_curvature_is_that_of_the_kl(
    double: steer.Model, gate: steer.DomainGate, kind: str
) -> None:
    """KL of a small step / step², on the same text, against the mean over independent draws."""
    vector = weight_vectors(double)[kind] if kind == "every" else planted(double)
    given = candidates_of(vector, None, None, None, gate if kind == "gated" else None)
    prompts = [f"{a} {b} {c}" for a in "abc" for b in "xyz" for c in "abc"]
    text = steer.neutral_text(double, prompts, max_new_tokens=8)
    step = 1e-2
    with double.steered(given[0].composition, step):
        measured = steer.kl_divergence(double, text).value / step**2
    drawn = [
        screen(double, given, letter_pairs(2), text, "mean", seed, False)[0].curvature
        for seed in range(24)
    ]
    error = statistics.stdev(drawn) / len(drawn) ** 0.5
    assert error < 0.1 * measured, "enough draws to see a factor of two"
    assert abs(statistics.fmean(drawn) - measured) < 4 * error


def test_gradients_leave_the_model_and_its_parameters_alone(lm: steer.Model) -> None:
    batch = exchange_batch(lm.chat, ["a b"], ["c"])
    frozen = [parameter.requires_grad_(False) for parameter in lm.hf_model.parameters()]
    before = lm.logits(["a b"], ["c"])[0]
    (found,) = text_gradients(
        lm.architecture, batch, [1, 3], steer.Scope("all"), [lambda row, logits: logits.sum()]
    )
    shapes = [t.shape for t in (*found[0].gradient, *found[0].stream)]
    assert shapes == [(len(batch.ids[0]), lm.d_model)] * 4
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in frozen)
    assert torch.equal(before, lm.logits(["a b"], ["c"])[0])
    assert not any(block._forward_hooks for block in lm.architecture.blocks)


def test_a_failed_entry_leaves_no_hook(lm: steer.Model) -> None:
    batch = exchange_batch(lm.chat, ["a b"], ["c"])
    with pytest.raises(IndexError):
        next(text_gradients(lm.architecture, batch, [1, 99], steer.Scope("all"), []))
    assert not any(block._forward_hooks for block in lm.architecture.blocks)
