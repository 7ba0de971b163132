"""At the last layer the lens is the model itself, before and after."""

import pytest
import torch

from steer import view
from tests.view.setting import LAYER, asked, last_block, model, next_logits, palrs, weights


def test_the_last_layer_is_the_models_own_distribution() -> None:
    lm, prompt = model(), asked()[0]
    found = view.next_token(lm, palrs(), prompt, 0.5)
    torch.testing.assert_close(
        found.before[-1], next_logits(prompt).log_softmax(0), rtol=1e-4, atol=1e-4
    )
    with lm.steered(palrs(), 0.5):
        after = next_logits(prompt).log_softmax(0)
    torch.testing.assert_close(found.after[-1], after, rtol=1e-4, atol=1e-4)
    assert float(found.kl[-1]) > 0.01


def test_layers_below_the_vector_are_left_alone() -> None:
    found = view.next_token(model(), palrs(), asked()[0], 0.5)
    assert torch.equal(found.before[:LAYER], found.after[:LAYER])
    assert not found.kl[:LAYER].any()
    assert (found.kl[LAYER:] > 0).all()
    still = view.next_token(model(), palrs(), asked()[0], 0.0)
    assert torch.equal(still.before, still.after)


def test_the_answer_that_was_begun_is_read_on() -> None:
    lm, prompt = model(), asked()[0]
    text = "Most people"
    found = view.next_token(lm, weights(), prompt, 0.0, begun=text)
    expected = lm.logits([prompt], [text + " with"])[0][-1].double().log_softmax(0)
    torch.testing.assert_close(found.before[-1], expected, rtol=1e-4, atol=1e-4)


def test_the_table_computes_the_divergence_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = view.next_token(model(), weights(), asked()[0], k=3)
    kl, calls = found.kl, []
    monkeypatch.setattr(view.NextToken, "kl", property(lambda _: calls.append(1) or kl))
    assert len(found.rows) == 3 * len(kl)
    assert len(calls) == 1


def test_the_table_has_the_likeliest_tokens() -> None:
    found = view.next_token(model(), weights(), asked()[0], k=3)
    last = [row for row in found.rows if row["layer"] == last_block()]
    assert [row["rank"] for row in last] == [1, 2, 3]
    top = found.after[-1].exp().topk(3)
    assert [row["p after"] for row in last] == top.values.tolist()
    assert [row["after"] for row in last] == [found.tokens[i] for i in top.indices.tolist()]
    kl = (found.after[-1].exp() * (found.after[-1] - found.before[-1])).sum()
    assert last[0]["KL (nats)"] == float(kl)
