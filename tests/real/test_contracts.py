"""What the toy promises holds on a real model: recording, rows, scopes, gates, weights, loading."""

import copy
from typing import Any

import pytest
import torch

import steer
from steer.demo import smollm2
from tests.real.data import QUESTIONS, pairs
from tests.registered import SCOPES
from tests.weights import everywhere

LAYER = 16
TOLERANCE = 1e-5  # relative, on logits in float32, as docs/architecture.md promises


def close(found: Any, expected: Any, tolerance: float = TOLERANCE) -> bool:
    return float((found - expected).norm() / expected.norm()) < tolerance


@pytest.fixture
def vector(lm: steer.Model) -> steer.Vector:
    activations = steer.record(lm, pairs(), at="response_mean", progress=False)
    return steer.mean_difference(activations)[LAYER]


def test_recording_equals_a_float64_reference_by_plain_hooks(lm: steer.Model) -> None:
    found = steer.record(lm, pairs(), at="response_mean", layers=[LAYER], progress=False)
    double = copy.deepcopy(lm.hf_model).double()
    held: list[torch.Tensor] = []
    block = double.model.layers[LAYER]
    block.register_forward_hook(
        lambda module, args, out: held.append(out[0] if isinstance(out, tuple) else out)
    )
    differences = []
    for pair in pairs():
        means = []
        for answer in (pair.chosen, pair.rejected):
            messages = [{"role": "user", "content": pair.prompt}]
            start = lm.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            before = len(lm.tokenizer(start, add_special_tokens=False).input_ids)
            ids = lm.tokenizer(
                start + answer, add_special_tokens=False, return_tensors="pt"
            ).input_ids
            held.clear()
            with torch.no_grad():
                double(ids)
            means.append(held[0][0, before:].mean(dim=0))
        differences.append(means[0] - means[1])
    expected = torch.stack(differences).mean(dim=0)
    assert close(found.of().difference[0], expected, 1e-4)


def test_packed_recording_equals_padded(lm: steer.Model) -> None:
    packed = steer.record(lm, pairs(), packing=True, progress=False)
    padded = steer.record(lm, pairs(), packing=False, progress=False)
    for key, moments in packed.moments.items():
        assert close(moments.difference, padded.moments[key].difference, 1e-4)


def test_rows_equal_their_prompts_alone(lm: steer.Model, vector: steer.Vector) -> None:
    answers = ["Put it into boiling water.", "Take water and a map."]
    with lm.steered(vector, [{"vector": 1.0}, {"vector": -1.0}]):
        together = lm.logits(QUESTIONS[:2], answers)
    for k, coefficient in enumerate((1.0, -1.0)):
        with lm.steered(vector, coefficient):
            [alone] = lm.logits([QUESTIONS[k]], [answers[k]])
        assert close(together[k], alone)


@pytest.mark.parametrize("scope", SCOPES)
def test_generating_with_a_cache_equals_the_full_forward(
    lm: steer.Model, vector: steer.Vector, scope: str
) -> None:
    with lm.steered(vector, 1.0, scope=scope):
        text = lm.generate(QUESTIONS[0], max_new_tokens=12)
        [logits] = lm.logits([QUESTIONS[0]], [text])
    ids = lm.tokenizer(text, add_special_tokens=False).input_ids
    top = logits.topk(2, dim=-1)
    clear = top.values[:, 0] - top.values[:, 1] > 1e-3  # no rounding turns these
    assert (top.indices[:, 0] == torch.tensor(ids))[clear].all()


def test_a_gate_opens_for_its_domain_alone(lm: steer.Model, vector: steer.Vector) -> None:
    health = ["I have a headache, what helps?", "How is a fever treated?", "Is my rash an allergy?"]
    money = ["How do I save for a house?", "What is a bond?", "Should I buy shares?"]
    gate = steer.domain_gate(lm, {"health": health, "money": money}, layer=LAYER)
    prompts, answers = (
        ["My knee hurts, what can I do?", "What is a mortgage?"],
        ["Rest.", "A loan."],
    )
    plain = lm.logits(prompts, answers)
    with lm.steered({"health": vector}, 1.0):
        steered = lm.logits(prompts, answers)
    with lm.steered({"health": vector}, 1.0, gate=gate):
        gated = lm.logits(prompts, answers)
    assert close(gated[0], steered[0])
    assert close(gated[1], plain[1])


def test_an_alignment_vector_by_hook_equals_merged(lm: steer.Model) -> None:
    delta = everywhere(lm.hf_model, keep=lambda name: "layers.3." in name, size=0.05)
    with lm.steered(delta, 1.0, weights="hook"):
        [hooked] = lm.logits([QUESTIONS[0]], ["Boil it."])
    with lm.steered(delta, 1.0, weights="merge"):
        [merged] = lm.logits([QUESTIONS[0]], ["Boil it."])
    assert close(hooked, merged, 1e-4)
    assert not close(hooked, lm.logits([QUESTIONS[0]], ["Boil it."])[0], 1e-3)


def test_the_gguf_file_equals_the_converted_folder(lm: steer.Model) -> None:
    source = smollm2.gguf_path()
    direct = steer.Model.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    assert torch.equal(
        direct.logits([QUESTIONS[0]], ["Boil it."])[0], lm.logits([QUESTIONS[0]], ["Boil it."])[0]
    )
