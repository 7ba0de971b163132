"""Choosing by a race against trying everything, on one table of margins.

Three positions × ten layers × four calibrated strengths of one behaviour: the margin of every
held-out pair under every setting is measured once and kept in a file, so that an interrupted run
goes on where it stopped. The pairs are then split again and again into validation and test; a race
and the exhaustive choice see the same validation pairs and are compared on the same test pairs. A
race tries coefficients of its own, which are measured when it first asks for them.
"""

import hashlib
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import steer
from steer.demo import load_model, smollm2
from steer.demo.language import pairs as toy_pairs
from steer.demo.real import behaviours
from steer.measure import NEUTRAL_PROMPTS, NeutralText, neutral_text
from steer.measure._side_effects import SideEffect
from steer.selection import Field, Limits, Outcome, Race, worst_accuracy
from steer.selection._candidates import Candidate, candidates_of
from steer.selection._evaluator import Evaluator, Scores, Try
from tests.bench.lines import Estimate, Limit, Line, exact
from tests.bench.registry import Options, bench

KL = 0.5
STRENGTHS = (0.25, 0.5, 0.75, 1.0)  # of the coefficient that spends the budget
_NEAR = 0.05  # of the budget: how far a calibrated KL may be from it, relative
_SPLITS = 20
_RESAMPLES = 2000
_TOGETHER = 40  # settings measured at once, and kept
Measuring = Callable[[Sequence[Try]], Sequence[Any]]
_Changes = Sequence[tuple[float, float]]  # of a pair: race less exhaustive, exhaustive less base


@dataclass(frozen=True, eq=False, slots=True)
class Ground:
    """A model, one behaviour's recording and held-out pairs, and what is tried.

    Args:
        name: What its figures are called.
        model: The model.
        made_from: The pairs that vectors are made from.
        pool: Held-out pairs.
        positions: Positions in the table.
        layers: Layers in the table.
        neutral: Neutral prompts.
        kl: The KL budget, nats per token.
        limited: Whether the limits on time hold here; a toy has few candidates.
    """

    name: str
    model: steer.Model
    made_from: steer.Pairs
    pool: steer.Pairs
    positions: tuple[str, ...]
    layers: tuple[int, ...]
    neutral: tuple[str, ...]
    kl: float
    limited: bool


@bench("choosing")
def choosing(options: Options) -> Iterator[Line]:
    """A race against the exhaustive choice on the same pairs, and the CPU time of both."""
    for ground in (_toy(),) if options.quick else (_toy(), _real()):
        yield from _figures(ground, 5 if options.quick else _SPLITS)


def _real() -> Ground:
    at = ("response_mean", "template[-1]", "template[-5]")
    held_out = behaviours.held_out("cheerful").with_domain("cheerful")
    layers = tuple(range(1, 30, 3))
    made_from = behaviours.pairs("cheerful").with_domain("cheerful")
    return Ground(
        "smollm2", smollm2.load(), made_from, held_out, at, layers, tuple(NEUTRAL_PROMPTS), KL, True
    )


def _toy() -> Ground:
    lm = load_model()
    pool = toy_pairs("medical", 24, split="validation")
    made_from = toy_pairs("medical", 36, split="train")
    at = ("response_mean", "template[-1]", "template[-2]")
    return Ground(
        "demo", lm, made_from, pool, at, tuple(range(6)), tuple(NEUTRAL_PROMPTS), 3.0, False
    )


class _Table(Evaluator):
    """Measures settings on the whole pool, and keeps them in a file."""

    def __init__(self, ground: Ground, text: NeutralText, path: Path) -> None:
        domain = str(ground.pool[0].domain)
        own = {domain: ground.pool}
        super().__init__(ground.model, own, (domain,), worst_accuracy, text, "mean")
        self.domain, self._path = domain, path
        self._rows: dict[str, dict[str, Any]] = {"scores": {}, "effects": {}}
        self.seconds: dict[str, float] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            self._take(json.loads(line))

    def scores(self, tries: Sequence[Try], sizes: Mapping[str, int]) -> list[Scores]:
        """Return the scores of the whole pool."""
        whole = {self.domain: len(self.pairs[self.domain])}
        self._measure(
            "scores",
            tries,
            lambda new: [
                s[self.domain][0].tolist() for s in super(_Table, self).scores(new, whole)
            ],
        )
        return [{self.domain: torch.tensor(self._rows["scores"][_name(t)])[None]} for t in tries]

    def costs(self, tries: Sequence[Try]) -> list[SideEffect | None]:
        """Return KL and perplexity of each setting."""
        self._measure("effects", tries, super().costs)
        return [SideEffect(*self._rows["effects"][_name(t)]) for t in tries]

    def _measure(self, kind: str, tries: Sequence[Try], measure: Measuring) -> None:
        """Measure what is not known, and keep it with the CPU seconds that it took."""
        new = list({_name(t): t for t in tries if _name(t) not in self._rows[kind]}.values())
        if not new:
            return
        start = time.process_time()
        found = measure(new)
        seconds = (time.process_time() - start) / len(new)
        with self._path.open("a") as file:
            for one, values in zip(new, found, strict=True):
                row = {"setting": _name(one), "kind": kind, "values": values, "seconds": seconds}
                self._take(row)
                file.write(json.dumps(row) + "\n")

    def _take(self, row: Mapping[str, Any]) -> None:
        if row["kind"] not in self._rows:  # of a table that held less
            return
        self._rows[row["kind"]][row["setting"]] = row["values"]
        self.seconds[row["setting"]] = self.seconds.get(row["setting"], 0.0) + row["seconds"]


class _OnPart(Evaluator):
    """Measures settings on a part of the pool: what the table says of those pairs."""

    def __init__(self, table: _Table, part: Sequence[int]) -> None:
        whole = table.pairs[table.domain]
        own = {table.domain: steer.Pairs.of(whole[k] for k in part)}
        super().__init__(table.model, own, table.moved, worst_accuracy, None, "mean")
        self._table, self._part, self.text = table, list(part), table.text

    def scores(self, tries: Sequence[Try], sizes: Mapping[str, int]) -> list[Scores]:
        """Return the scores of the first pairs of the part."""
        found = self._table.scores(tries, sizes)
        return [{n: s[n][..., self._part][..., :size] for n, size in sizes.items()} for s in found]

    def costs(self, tries: Sequence[Try]) -> list[SideEffect | None]:
        """Return KL and perplexity of each setting."""
        return self._table.costs(tries)


def _name(one: Try) -> str:
    candidate, row = one
    return f"{candidate.label} at {row[0]!r}" if any(row) else "unsteered"


def _figures(ground: Ground, splits: int) -> Iterator[Line]:
    """Yield the figures of one ground."""
    lm = ground.model
    text, fisher, _ = (neutral_text(lm, ground.neutral[k::3]) for k in range(3))
    recording = steer.record(lm, ground.made_from, progress=False)
    vectors = {p: steer.mean_difference(recording, position=p) for p in ground.positions}
    candidates = candidates_of(vectors, ground.layers, None, None, None)
    everything = candidates_of(recording, None, None, None, None)
    table = _Table(ground, text, _file(ground, candidates))
    grid, seconds = _grid(ground, candidates, table, text)
    whole = seconds * len(everything) / len(candidates)
    (before,) = table.scores([(candidates[0], (0.0,))], {})
    changes: dict[int, list[tuple[float, float]]] = {}
    correlations = []
    for seed in range(splits):
        validation, test = _parts(ground.pool, seed)
        outcome = _raced(candidates, table, validation, ground.kl, fisher)
        assert outcome.screened is not None
        correlations.append(outcome.screened.correlation)
        raced = (candidates[outcome.candidate], outcome.best.coefficients)
        best = _exhaustive(grid, _OnPart(table, validation), ground.kl)
        one, other = (_margins(s, table.domain) for s in table.scores([raced, best], {}))
        zero = _margins(before, table.domain)
        for k in test:
            pair = float(one[k] - other[k]), float(other[k] - zero[k])
            changes.setdefault(k, []).append(pair)
    yield _compared(ground.name, list(changes.values()), splits, correlations)
    start = time.process_time()
    halves = ground.pool.split(0.5, 0.5)
    steer.select(
        lm, recording, halves[0], test=halves[1], limits=Limits(kl=ground.kl), progress=False
    )
    spent = time.process_time() - start
    yield _share(ground, spent, whole, len(everything))
    yield Line(
        f"choosing.{ground.name}.seconds",
        f"a race of all {len(everything)} candidates, with its test, baselines and answers",
        exact(spent),
        1,
        Limit(600.0) if ground.limited else None,
        unit="CPU s",
    )


def _file(ground: Ground, candidates: Sequence[Candidate]) -> Path:
    """Return the file of a table: what it depends on is in its name."""
    digest = hashlib.sha256(repr([*ground.pool]).encode())
    digest.update(repr((ground.neutral, torch.__version__)).encode())
    for candidate in candidates:
        (part,) = candidate.composition.parts.values()
        digest.update(candidate.label.encode())
        digest.update(part.vector.direction(part.vector.layers[0]).numpy().tobytes())
    folder = smollm2.cache_folder() / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"choosing-{ground.name}-{digest.hexdigest()[:12]}.jsonl"


def _grid(
    ground: Ground, candidates: Sequence[Candidate], table: _Table, text: NeutralText
) -> tuple[list[Try], float]:
    """Return the settings of the table, all measured, and the CPU seconds that they took."""
    known = table._path.with_suffix(".strengths.json")
    found: dict[str, Any] = json.loads(known.read_text()) if known.exists() else {}
    grid: list[Try] = []
    for candidate in candidates:
        if candidate.label not in found:
            start = time.process_time()
            c = steer.calibrate(
                ground.model,
                candidate.composition(1.0),
                kl=ground.kl * (1 - _NEAR),
                neutral=text,
                tolerance=_NEAR,
                most=64.0,
                progress=False,
            )
            found[candidate.label] = c, time.process_time() - start
            known.write_text(json.dumps(found))
        grid += [(candidate, (s * found[candidate.label][0],)) for s in STRENGTHS]
    for k in range(0, len(grid), _TOGETHER):
        table.scores(grid[k : k + _TOGETHER], {})
        table.costs(grid[k : k + _TOGETHER])
    measured = sum(table.seconds[_name(one)] for one in grid)
    return grid, measured + sum(seconds for _, seconds in found.values())


def _parts(pool: steer.Pairs, seed: int) -> tuple[list[int], list[int]]:
    """Return which pairs are for validation and for test; a question is in one of them."""
    asked = sorted({pair.prompt for pair in pool}, key=str)
    random.Random(seed).shuffle(asked)
    own = {*asked[: len(asked) // 2]}
    validation = [k for k, pair in enumerate(pool) if pair.prompt in own]
    return validation, [k for k in range(len(pool)) if k not in set(validation)]


def _raced(
    candidates: Sequence[Candidate],
    table: _Table,
    validation: Sequence[int],
    kl: float,
    fisher: NeutralText,
) -> Outcome:
    """Return what a race chooses on the validation pairs; one seed, so that KL is measured once."""
    reads = _OnPart(table, validation)
    return Race().search(Field(candidates, (STRENGTHS,), reads, Limits(kl=kl), fisher=fisher))


def _exhaustive(grid: Sequence[Try], reads: _OnPart, kl: float) -> Try:
    """Return the setting of greatest mean margin on the validation pairs within the budget."""
    kept = [t for t, cost in zip(grid, reads.costs(grid), strict=True) if cost and cost.kl <= kl]
    sizes = {name: len(part) for name, part in reads.pairs.items()}
    (domain,) = sizes
    means = [float(_margins(own, domain).mean()) for own in reads.scores(kept, sizes)]
    return kept[means.index(max(means))]


def _margins(scores: Scores, domain: str) -> Tensor:
    chosen, rejected = scores[domain][0]
    return chosen - rejected


def _compared(
    name: str,
    changes: Sequence[Sequence[tuple[float, float]]],
    splits: int,
    screen: Sequence[float],
) -> Line:
    """Return the mean difference in margin as a share of the exhaustive gain, over test pairs."""
    pairs = [
        (statistics.fmean(d for d, _ in own), statistics.fmean(g for _, g in own))
        for own in changes
    ]
    draw = random.Random(0)

    def share(some: Sequence[tuple[float, ...]]) -> float:
        return sum(d for d, _ in some) / sum(g for _, g in some)

    resampled = sorted(share(draw.choices(pairs, k=len(pairs))) for _ in range(_RESAMPLES))
    low, high = resampled[int(0.025 * _RESAMPLES)], resampled[int(0.975 * _RESAMPLES) - 1]
    gain = statistics.fmean(g for _, g in pairs)
    return Line(
        f"choosing.{name}.margin",
        "(margin by a race − margin by exhaustive choice) / gain of the latter, unseen pairs",
        Estimate(share(pairs), low, high),
        splits,
        Limit(-0.10, "at least"),
        note=f"exhaustive gain {gain:.3f} nats over {len(pairs)} pairs; the screen's rank "
        f"correlation, median over splits {statistics.median(screen):.2f}",
    )


def _share(ground: Ground, spent: float, whole: float, candidates: int) -> Line:
    return Line(
        f"choosing.{ground.name}.time",
        f"a race / the exhaustive grid of {candidates} candidates × {len(STRENGTHS)}, CPU time",
        exact(spent / whole),
        1,
        Limit(0.03) if ground.limited else None,
        note=f"race {spent:.0f} s; the grid {whole:.0f} s, from the part of it that was measured",
    )
