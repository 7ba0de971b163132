"""What takes long shows a bar, and none where that is not wanted."""

import io

import pytest
import torch

import steer
from steer.measure import baselines, off_target, reliability, steerability
from steer.pairs import Pair, Pairs
from steer.selection import calibrate, compare_at_kl
from tests.tiny import tiny_model, tiny_tokenizer

PAIRS = Pairs.of([Pair("how are you", "fine", "no"), Pair("who", "the sea", "a boat")])
PROMPTS = {"sea": ["the sea"], "town": ["the town", "a house"]}
GATE = steer.DomainGate(("sea", "town"), torch.eye(2, 32), 1)
VECTOR = steer.Vector.of({1: torch.linspace(-1, 1, 32)})


class Terminal(io.StringIO):
    """What says that it is a terminal."""

    def isatty(self):
        return True


def judge(prompt, answer):
    return "yes"


@pytest.fixture(scope="module")
def lm():
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.mark.parametrize(
    ("called", "call"),
    [
        ("likelihoods", lambda lm, **how: baselines(lm, VECTOR, PAIRS, instruction="be", **how)),
        ("likelihoods", lambda lm, **how: off_target(lm, VECTOR, PAIRS, **how)),
        (
            "answers",
            lambda lm, **how: off_target(lm, VECTOR, PAIRS, judge=judge, max_new_tokens=1, **how),
        ),
        ("likelihoods", lambda lm, **how: steerability(lm, VECTOR, PAIRS, **how)),
        ("recording", lambda lm, **how: reliability(lm, PAIRS, **how)),
        ("gate", lambda lm, **how: steer.domain_gate(lm, PROMPTS, layer=1, **how)),
        ("routing", lambda lm, **how: steer.routing_accuracy(lm, GATE, PROMPTS, **how)),
        ("calibrate", lambda lm, **how: calibrate(lm, VECTOR, 0.01, neutral=["who"], **how)),
        (
            "compare",
            lambda lm, **how: compare_at_kl(lm, {"v": VECTOR}, PAIRS, 0.01, neutral=["who"], **how),
        ),
    ],
)
def test_what_takes_long_shows_a_bar(lm, monkeypatch, called, call):
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    call(lm)
    assert called in shown.getvalue()
    for file, how in ((Terminal(), {"progress": False}), (io.StringIO(), {})):
        monkeypatch.setattr("sys.stderr", file)
        call(lm, **how)
        assert file.getvalue() == ""


def test_baselines_and_off_target_effects_can_be_settled(lm):
    def away(prompt, answer):
        raise ConnectionError("away")

    how = {"judge": away, "wanted": "yes", "max_new_tokens": 1, "progress": False}
    beside = baselines(lm, VECTOR, PAIRS, instruction="be", **how)
    spill = off_target(lm, VECTOR, PAIRS, **how)
    assert {found.failed for found in beside.again(away).judged.values()} == {2}
    settled = beside.again(away, give_up=True)
    assert {found.accuracy.hits for found in settled.judged.values()} == {0}
    assert spill.again(away, give_up=True).judged[None, "all"].share(None).hits == 2
