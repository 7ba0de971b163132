"""Searching three domains' coefficients on the demo model, and vectors that do nothing.

The grid: 21 values of each domain, 9,261 settings, scored by the held-out likelihood preference
accuracy in the domain where it is lowest, expert over avoidance. The vectors are those of the
demo's card, made by PaLRS from 100 pairs, at layer 4 of 6. The whole grid is scored once on a pool
of pairs; each seed draws three quarters of the pool and searches on these. As the search visits
settings of the grid only, it is given their scores from the table.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

import steer
from notebooks.experiments.study import PALRS_LAYER, residual_vectors
from steer.demo import load_model
from steer.demo.data import DOMAINS
from steer.demo.language import pairs
from steer.extract import domain_gate
from steer.measure import Scorer, random_like
from steer.measure._reduce import reduced
from steer.selection import CoarseToFine, Field, Limits, SettingResult
from steer.selection._candidates import Candidate
from tests.bench.lines import Limit, Line, estimate, exact
from tests.bench.registry import Options, bench
from tests.selection.candidates import COEFFICIENTS, evidence_of, sides

VALUES = tuple(k / 10 for k in range(-10, 11))
GRID = (VALUES,) * len(DOMAINS)
SETTINGS = list(itertools.product(*GRID))
SEEDS = 10
_POOL, _DRAWN = 16, 12  # pairs of a domain: all, and those of one seed
_BUDGET = len(SETTINGS) * 3 // 100
_BATCHES = (96, 48, 32, 16)
_TOGETHER = 512
_RANDOM = 200
_ALPHA, _MOST = 0.01, 6  # and the 99% quantile of Binomial(200, 0.01)


@bench("search")
def search(options: Options) -> Iterator[Line]:
    """The grid of 9,261 settings: its cost, what a search finds of it, and useless vectors."""
    lm = load_model()
    vectors = residual_vectors(lm)
    pool = {d: pairs(d, _POOL, split="validation") for d in DOMAINS}
    texts = [pair for d in DOMAINS for pair in pool[d]]
    apart = _apart(lm, steer.compose(vectors), texts, 3 if options.quick else 9)
    gate = domain_gate(lm, steer.Pairs.of(texts), layer=PALRS_LAYER)
    for name, knobs in (("gated", steer.compose(vectors, gate=gate)), ("", steer.compose(vectors))):
        every = 8 if options.quick and not name else 1
        margins, seconds = _grid(lm, knobs, texts, every)
        yield _cost(name, seconds * every, apart)
        if every == 1:
            yield from _found(name, margins)
    yield from _useless(lm, vectors, 40 if options.quick else _RANDOM)


def _grid(
    lm: steer.Model, knobs: steer.Composition, texts: Sequence[steer.Pair], every: int
) -> tuple[Float[Tensor, "setting domain pair"], float]:
    """Return the margins of every setting, and the CPU time that they took."""
    start = time.process_time()
    settings = torch.tensor(SETTINGS[::every])
    scorer = Scorer(lm, knobs, *sides(texts), foreseen=settings)
    scores = torch.cat(
        [reduced(scorer(part).logprobs, "mean") for part in settings.split(_TOGETHER)]
    )
    seconds = time.process_time() - start
    chosen, rejected = scores.chunk(2, dim=1)
    return (chosen - rejected).reshape(len(settings), len(DOMAINS), -1), seconds


def _apart(
    lm: steer.Model, knobs: steer.Composition, texts: Sequence[steer.Pair], samples: int
) -> list[float]:
    """Return the CPU seconds of some settings, one evaluation each, at the fastest batch."""
    prompts, answers = sides(texts)
    drawn = torch.Generator().manual_seed(0)
    settings = torch.rand(samples + 1, len(DOMAINS), generator=drawn) * 2 - 1

    def once(size: int, setting: Tensor) -> float:
        start = time.process_time()
        with lm.steered(knobs, setting):
            for k in range(0, len(prompts), size):
                lm.logprobs(prompts[k : k + size], answers[k : k + size])
        return time.process_time() - start

    fastest = min(_BATCHES, key=lambda size: min(once(size, settings[0]) for _ in range(3)))
    return [once(fastest, setting) for setting in settings[1:]]


def _cost(name: str, seconds: float, apart: Sequence[float]) -> Line:
    ratios = [one * len(SETTINGS) / seconds for one in apart]
    return Line(
        f"search.grid{'.' + name if name else ''}",
        f"one evaluation per setting / the grid of {len(SETTINGS)}, {name or 'no gate'}, CPU time",
        estimate(ratios),
        len(ratios),
        Limit(5.0, "at least"),
        note=f"grid {seconds:.0f} s; the other from {len(apart)} settings at the fastest batch of "
        f"{_BATCHES}, median {sorted(apart)[len(apart) // 2]:.3f} s each, times {len(SETTINGS)}",
    )


def _found(name: str, margins: Float[Tensor, "setting domain pair"]) -> Iterator[Line]:
    """Yield how far a search stays behind the best of the grid, over seeds, and its cost."""
    where = f".{name}" if name else ""
    for goal, signs in (("expert", (1, 1, 1)), ("conflict", (1, -1, 1))):
        asked = margins * torch.tensor(signs)[:, None]
        runs = [_search(asked, seed) for seed in range(SEEDS)]
        behind = [100 * (best - found) for best, found, _ in runs]
        kept = goal == "expert"
        yield Line(
            f"search.found{where}.{goal}",
            "best of the grid − best of the search, the worst of 10 seeds",
            exact(max(behind)),
            SEEDS,
            Limit(1.0) if kept else None,
            unit="points",
            note=f"best of the grid {min(r[0] for r in runs):.3f} to {max(r[0] for r in runs):.3f}"
            + ("" if kept else f"; {DOMAINS[1]} is asked for avoidance; {behind}"),
        )
        most = max(evaluated for _, _, evaluated in runs)
        yield Line(
            f"search.evaluations{where}.{goal}",
            "settings that the search evaluates, of those of the grid, the most of 10 seeds",
            exact(100 * most / len(SETTINGS)),
            SEEDS,
            Limit(3.0) if kept else None,
            unit="%",
            note=f"{most} of {len(SETTINGS)}",
        )


def _search(margins: Float[Tensor, "setting domain pair"], seed: int) -> tuple[float, float, int]:
    """Return the best of the grid, the best of the search, and how much it evaluated."""
    draw = torch.Generator().manual_seed(seed)
    rights = []
    for own in margins.unbind(dim=1):
        drawn = torch.randperm(own.shape[1], generator=draw)[:_DRAWN]
        rights.append((own[:, drawn] > 0).double().mean(dim=1))
    table = torch.stack(rights, dim=1)
    place = {row: k for k, row in enumerate(SETTINGS)}
    measure = partial(_looked_up, table, place)
    nothing = Candidate("", steer.compose(a=steer.Vector.of({0: torch.ones(1)})))
    field = Field([nothing], GRID, measure, Limits(), seed=seed, budget=_BUDGET)
    CoarseToFine().search(field)
    found = field.chosen().best.objective
    return float(table.min(dim=1).values.max()), found, len(field.results)


def _looked_up(
    table: Float[Tensor, "setting domain"],
    place: dict[tuple[float, ...], int],
    tries: Sequence[tuple[Candidate, tuple[float, ...]]],
) -> list[SettingResult]:
    settings = [row for _, row in tries]
    rows = [table[place[c]] for c in settings]
    return [
        SettingResult(
            c,
            float(row.min()),
            {d: {"accuracy": float(x)} for d, x in zip(DOMAINS, row, strict=True)},
            float(row.mean()),
        )
        for c, row in zip(settings, rows, strict=True)
    ]


def _useless(lm: steer.Model, vectors: dict[str, steer.Vector], count: int) -> Iterator[Line]:
    """Yield how many random vectors are selected as working, and how many real ones."""
    for kind in ("random", "real"):
        passed, least, seen = 0, 1.0, 0
        for k in range(count if kind == "random" else SEEDS * len(DOMAINS)):
            real = vectors[DOMAINS[k % len(DOMAINS)]]
            candidate = random_like(real, 1_000_000 + k) if kind == "random" else real
            found = evidence_of(lm, candidate, DOMAINS[k % len(DOMAINS)], k)
            passed, least, seen = (
                passed + found.holds(_ALPHA),
                min(least, found.corrected),
                seen + 1,
            )
        yield Line(
            f"search.{kind}",
            f"of {seen} {kind} vectors, those selected as working at α = {_ALPHA}",
            exact(passed),
            seen,
            Limit(_MOST) if kind == "random" else Limit(seen, "at least"),
            note=f"{len(COEFFICIENTS)} settings tried for each; the least corrected p {least:.2g}",
        )
