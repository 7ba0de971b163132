"""Stage `pairs`: how many pairs does a direction need? And `shuffled`: what if labels are random?"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

import steer
from notebooks.study.matters.measured import SLICE, Explored, at_budget, scaled, scored
from notebooks.study.rows import Row
from steer.measure import neutral_text

SIZES = (10, 20, 40, 80)
DRAWS = 3
EXCHANGES = 8


def pairs(model: steer.Model, what: Explored, seed: int) -> Iterator[Row]:
    """Yield a row for each number of pairs and draw: gain at the budget, and cosine to all."""
    differences = _differences(model, what)
    rows: dict[str, tuple[int, int, Tensor]] = {}
    for size in (n for n in SIZES if n < len(differences)):
        for draw in range(DRAWS):
            generator = torch.Generator().manual_seed(1000 * seed + draw)
            some = torch.randperm(len(differences), generator=generator)[:size]
            rows[f"{size} {draw}"] = size, draw, differences[some].mean(dim=0)
    rows["all"] = len(differences), 0, differences.mean(dim=0)
    found = dict(_measured(model, what, {name: v for name, (_, _, v) in rows.items()}))
    whole = differences.mean(dim=0)
    for name, (size, draw, v) in rows.items():
        cosine = float(torch.cosine_similarity(v, whole, dim=0))
        yield {"pairs": size, "draw": draw, "cosine": round(cosine, 4), **found[name]}


def shuffled(model: steer.Model, what: Explored, seed: int) -> Iterator[Row]:
    """Yield a row for the true labels, and for each random exchange of chosen and rejected."""
    differences = _differences(model, what)
    vectors = {"true": differences.mean(dim=0)}
    for draw in range(EXCHANGES):
        generator = torch.Generator().manual_seed(1000 * seed + draw)
        signs = torch.randint(0, 2, (len(differences), 1), generator=generator) * 2 - 1
        vectors[f"shuffled {draw}"] = (signs * differences).mean(dim=0)
    for name, row in _measured(model, what, vectors):
        yield {"labels": name, **row, "yes": [pair.chosen == "Yes" for pair in what.unseen]}


def _differences(model: steer.Model, what: Explored) -> Tensor:
    kept = steer.record(
        model, what.train, at="response_mean", layers=[SLICE], keep="pairs", progress=False
    )
    return kept.pairs().difference[:, 0].float()


def _measured(
    model: steer.Model, what: Explored, directions: Mapping[str, Tensor]
) -> Iterator[tuple[str, Row]]:
    """Yield what each direction gains at the budget."""
    text = neutral_text(model)
    raw = {name: steer.Vector.of({SLICE: v}) for name, v in directions.items()}
    vectors = scaled(model, raw, text, SLICE)
    coefficients = at_budget(model, vectors, what.unseen, text)
    found = scored(model, vectors, coefficients, what.unseen)
    for name, c in coefficients.items():
        yield name, {"layer": SLICE, "coefficient": c, "gains": found.gains(name)}
