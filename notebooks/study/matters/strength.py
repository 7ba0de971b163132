"""Stage `dose`: margin, KL and text at seven strengths."""

from collections.abc import Iterator

import steer
from notebooks.study.final import NEUTRAL, TOKENS
from notebooks.study.matters.measured import SLICE, Explored, at_budget, scaled, scored
from notebooks.study.rows import Row
from steer.measure import kl_divergence, neutral_text

TIMES = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # the coefficient that spends the budget
ANSWERED = 2


def dose(model: steer.Model, what: Explored, seed: int) -> Iterator[Row]:
    """Yield a row for each strength."""
    text, unread = neutral_text(model), neutral_text(model, NEUTRAL)
    recording = steer.record(model, what.train, at="response_mean", layers=[SLICE], progress=False)
    vectors = scaled(model, {"mean": steer.mean_difference(recording)}, text, SLICE)
    budget = at_budget(model, vectors, what.unseen, text)["mean"]
    found = scored(model, vectors, {"mean": [t * budget for t in TIMES]}, what.unseen)
    asked = list(what.asked[:ANSWERED])
    for name, times in zip(found.names[1:], TIMES, strict=True):
        with model.steered(vectors["mean"], times * budget):
            kl = kl_divergence(model, unread).value
            answers = model.generate(asked, max_new_tokens=TOKENS)
        yield {
            "times": times,
            "coefficient": times * budget,
            "margins": [round(float(m), 5) for m in found.margins(name)],
            "kl_neutral": kl,
            "asked": asked,
            "answers": answers,
        }
