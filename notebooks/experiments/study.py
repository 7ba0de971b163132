"""All experiments of the alignment-vector paper in small, measured on the demo model."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from notebooks.experiments.clock import Clock
from notebooks.experiments.cost import Joint, Prompting, joint_tuning, prompting
from notebooks.experiments.score import Asked, Table, ask, judged, least, likelihood, two_domains
from notebooks.experiments.search import COMBINATIONS, Found, Settings, by_grid, coarse_to_fine
from steer.algebra import Composition, DomainGate, Vector, compose
from steer.demo.data import DOMAINS
from steer.demo.language import pairs
from steer.extract import domain_gate, palrs, record
from steer.model import Model
from steer.pairs import Pairs

KINDS = ("weights", "residual", "both")
LAMBDAS = tuple(k / 10 for k in range(-10, 11))
GRID = (-1.0, -0.75, -0.5, 0.0, 0.1, 0.2, 0.5, 0.75, 1.0)  # closer where levels change
COARSE = (-1.0, -0.5, 0.0, 0.5, 1.0)
REACHED = 0.9  # share of answers at the wanted level, in every domain
TRANSFER = (-1.0, -0.5, 0.0, 0.5, 1.0)
JOINT = ("expert", "generic", "avoidance")  # the combination that the costs are compared on
PALRS_LAYER = 4
GATE_LAYER = 2


@dataclass(frozen=True, eq=False, slots=True)
class Reached:
    """What one way of finding settings reached for the 27 combinations.

    Args:
        kind: `weights`, `residual` or `both`.
        gated: Whether each row's vectors were gated by its prompt's domain.
        how: `grid` or `coarse to fine`.
        found: The settings, found on validation questions by likelihood preference.
        test: `[combination]`, share of generated answers at the wanted level, in the domain where
            it is least, on test questions.
        two_domains: `[combination]`, share of prompts that ask about two domains whose answer
            is at the level wanted in the domain it is about.
        seconds: CPU time of the search, for all combinations.
    """

    kind: str
    gated: bool
    how: str
    found: Found
    test: torch.Tensor
    two_domains: torch.Tensor
    seconds: float

    @property
    def count(self) -> int:
        """Combinations reached in at least 90% of the answers of every domain."""
        return int((self.test >= REACHED).sum())


@dataclass(frozen=True, eq=False, slots=True)
class Domains:
    """Everything that was measured.

    Args:
        likelihood: By kind and moved domain: share of each level by coefficient and asked domain,
            by likelihood of reference answers.
        judged: The same by the rule judge on generated answers.
        transfer: By moved domain, as `judged`, of the weights on the safety-tuned sibling.
        lambdas: Coefficients of these tables.
        lambdas_transfer: Coefficients of `transfer`.
        reached: What was reached for the combinations, by each way.
        routed: Share of test questions that the gate gives to their own domain.
        joint: Preference-tuning all domains jointly, for one combination.
        prompting: Asking by a system message instead.
        seconds: Time of each step.
    """

    likelihood: Mapping[tuple[str, str], Table]
    judged: Mapping[tuple[str, str], Table]
    transfer: Mapping[str, Table]
    lambdas: tuple[float, ...]
    lambdas_transfer: tuple[float, ...]
    reached: tuple[Reached, ...]
    routed: float
    joint: Joint
    prompting: Prompting
    seconds: Mapping[str, float]


def residual_vectors(model: Model, *, seed: int = 0) -> dict[str, Vector]:
    """Return the PaLRS vector of each domain from 100 pairs, at the layer the card measures.

    Args:
        model: The demo model.
        seed: Seed of the pairs.
    """
    made_from = Pairs.of(pair for d in DOMAINS for pair in pairs(d, 100, seed=seed))
    found = record(model, made_from, at="template", progress=False)
    return {
        d: palrs(found, domain=d, positions=["template[-1]"], layers=[PALRS_LAYER]) for d in DOMAINS
    }


def kinds(
    weights: Mapping[str, Vector], residual: Mapping[str, Vector]
) -> dict[str, dict[str, Vector]]:
    """Return the vectors of each domain by kind; `both` is half of each, one coefficient.

    Args:
        weights: Alignment vector of each domain.
        residual: Residual vector of each domain.
    """
    both = {d: 0.5 * weights[d] + 0.5 * residual[d] for d in DOMAINS}
    return {"weights": dict(weights), "residual": dict(residual), "both": both}


def study(
    model: Model,
    weights: Mapping[str, Vector],
    safety: Vector,
    *,
    n_search: int = 4,
    n_judged: int = 30,
    grid: Sequence[float] = GRID,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Domains:
    """Run every experiment.

    Args:
        model: The demo model.
        weights: Alignment vector of each domain.
        safety: The difference between the safety-tuned sibling and the demo model.
        n_search: Validation questions per domain that settings are searched with.
        n_judged: Test questions per domain that are answered and judged.
        grid: Coefficients of one axis of the full grid.
        seed: Seed of questions and of the joint tuning.
        say: Called with the name of each step as it begins.

    Returns:
        All that was measured.
    """
    clock = Clock(say)
    with clock.step("compute residual vectors and the gate"):
        by_kind = kinds(weights, residual_vectors(model, seed=seed))
        gate = _gate(model, seed)
    valid = ask(n_search, seed=seed, split="validation")
    test = ask(n_judged, seed=seed, split="test")
    moves = _moves(LAMBDAS)
    with clock.step(f"move each domain to {len(LAMBDAS)} coefficients"):
        found = {kind: compose(by_kind[kind]) for kind in ("weights", "residual")}
        likely = {
            kind: likelihood(model, knobs, moves, test).shares for kind, knobs in found.items()
        }
        spoken = {kind: judged(model, knobs, moves, test) for kind, knobs in found.items()}
    reached = []
    for kind in KINDS:
        for gated in (False, True):
            with clock.step(f"27 combinations, {kind}, {'gated' if gated else 'no gate'}"):
                knobs = compose(by_kind[kind], gate=gate if gated else None)
                reached += _reached(model, knobs, kind, valid, test, grid)
    with clock.step("transfer to the safety-tuned sibling"):
        transfer = _transfer(model, weights, safety, test)
    with clock.step("tune all domains jointly, for one combination"):
        joint = joint_tuning(model, JOINT, test, seed=seed)
    with clock.step("ask by system message"):
        best = max((r for r in reached if r.gated), key=lambda r: r.count)
        at = best.found.settings[COMBINATIONS.index(JOINT)].tolist()
        asked = prompting(model, compose(by_kind[best.kind], gate=gate)(at), JOINT, test)
    return Domains(
        likelihood=_by_domain(likely, len(LAMBDAS)),
        judged=_by_domain(spoken, len(LAMBDAS)),
        transfer=transfer,
        lambdas=LAMBDAS,
        lambdas_transfer=TRANSFER,
        reached=tuple(reached),
        routed=gate.accuracy or 0.0,
        joint=joint,
        prompting=asked,
        seconds=dict(clock.seconds),
    )


def _gate(model: Model, seed: int) -> DomainGate:
    made_from = Pairs.of(pair for d in DOMAINS for pair in pairs(d, 100, seed=seed))
    held_out = ask(60, seed=seed, split="test").questions
    return domain_gate(model, made_from, layer=GATE_LAYER, held_out=held_out)


def _moves(values: Sequence[float]) -> Settings:
    """Return settings that move one domain at a time."""
    column = torch.tensor(values)[:, None]
    return torch.cat([column * row for row in torch.eye(len(DOMAINS))])


def _by_domain(tables: Mapping[str, Table], n: int) -> dict[tuple[str, str], Table]:
    return {
        (kind, domain): part
        for kind, table in tables.items()
        for domain, part in zip(DOMAINS, table.split(n), strict=True)
    }


def _reached(
    model: Model, knobs: Composition, kind: str, valid: Asked, test: Asked, grid: Sequence[float]
) -> list[Reached]:
    evaluate = partial(likelihood, model, knobs, asked=valid)
    found = []
    for how, search in (
        ("grid", partial(by_grid, evaluate, grid)),
        ("coarse to fine", partial(coarse_to_fine, evaluate, COARSE)),
    ):
        start = time.process_time()
        best = search()
        seconds = time.process_time() - start
        table = judged(model, knobs, best.settings, test)
        shares = [least(table[i : i + 1], wanted) for i, wanted in enumerate(COMBINATIONS)]
        mixed = two_domains(model, knobs, best.settings, COMBINATIONS, _few(test))
        gated = knobs.gate is not None
        found.append(Reached(kind, gated, how, best, torch.cat(shares), mixed, seconds))
    return found


def _few(asked: Asked, n: int = 6) -> Asked:
    return Asked({d: texts[:n] for d, texts in asked.questions.items()}, {})


def _transfer(
    model: Model, weights: Mapping[str, Vector], safety: Vector, test: Asked
) -> dict[str, Table]:
    """Return what each alignment vector does on top of the safety-tuned sibling."""
    with model.steered(safety, 1.0, weights="merge"):
        table = judged(model, compose(weights), _moves(TRANSFER), test)
    return dict(zip(DOMAINS, table.split(len(TRANSFER)), strict=True))
