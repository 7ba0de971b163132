"""Stage `transfer`: what does the vector of one behaviour do to the pairs of another?"""

from collections.abc import Iterator, Sequence

import steer
from notebooks.study.matters.measured import SLICE, Explored, at_budget, scaled, scored
from notebooks.study.rows import Row
from steer.measure import neutral_text

MADE_FROM = 56  # pairs of each behaviour


def transfer(model: steer.Model, among: Sequence[Explored], seed: int) -> Iterator[Row]:
    """Yield a row for each behaviour and each vector: the gain on the behaviour's pairs."""
    text, made = neutral_text(model), {}
    for what in among:
        recording = steer.record(
            model, what.train[:MADE_FROM], at="response_mean", layers=[SLICE], progress=False
        )
        made[what.own.name] = steer.mean_difference(recording)
    vectors = scaled(model, made, text, SLICE)
    coefficients = at_budget(model, vectors, among[0].unseen, text)
    for what in among:
        on = what.own.name
        found = scored(model, vectors, coefficients, what.unseen)
        for name, c in coefficients.items():
            cosine = round(vectors[name].cosine(vectors[on]), 4)
            gains = found.gains(name)
            yield {
                "behaviour": on,
                "vector": name,
                "coefficient": c,
                "cosine": cosine,
                "gains": gains,
            }
