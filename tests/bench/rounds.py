"""Interleaved measurement: every method once per round, slice by slice, CPU time, one thread."""

import gc
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.bench.lines import PRECISION, Estimate, Limit, Line, estimate
from tests.bench.slices import interleaved

FEWEST = 11  # rounds before an interval is believed


@dataclass(frozen=True, slots=True)
class Method:
    """Something to be measured.

    Args:
        name: Its name.
        run: Does the work of one round; the argument is the round's number, from 0.
        rounds: Rounds after which it is left out; None for as long as measuring goes on.
        scale: Factor on its CPU time in a round, if another amount of work is what counts.
    """

    name: str
    run: Callable[[int], object]
    rounds: int | None = None
    scale: Callable[[int], float] = field(default=lambda number: 1.0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A ratio of two methods' CPU times.

    Args:
        name: The figure's name.
        what: The ratio in words.
        over: Name of the method above the line.
        under: Name of the method below it.
        limit: What it must keep to, if anything.
        note: More, for people.
    """

    name: str
    what: str
    over: str
    under: str
    limit: Limit | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """When measuring stops at the latest.

    Args:
        seconds: CPU seconds of one set of methods.
        rounds: Rounds.
    """

    seconds: float
    rounds: int


Samples = Mapping[str, Mapping[int, float]]


def measure(
    methods: Sequence[Method], comparisons: Sequence[Comparison], budget: Budget
) -> Iterator[Line]:
    """Run methods in interleaved rounds until every limited ratio is known to 1%.

    Args:
        methods: The methods, two at least, each on a model of its own (`slices.twin`).
        comparisons: The ratios wanted; those without a limit do not prolong the measurement.
        budget: When to stop at the latest; `FEWEST` rounds are run in any case.
    """
    expected = {method.name: cpu_time(method, 0) for method in methods}  # warm-up, dropped
    samples: dict[str, dict[int, float]] = {method.name: {} for method in methods}
    start = time.process_time()
    for number in itertools.count():
        active = _turned([m for m in methods if m.rounds is None or number < m.rounds], number)
        jobs = [partial(method.run, number) for method in active]
        times = interleaved(jobs, [expected[method.name] for method in active])
        for method, seconds in zip(active, times, strict=True):
            samples[method.name][number] = seconds * method.scale(number)
            expected[method.name] = seconds
        if number + 1 < FEWEST:
            continue
        spent = time.process_time() - start
        if number + 1 >= budget.rounds or spent >= budget.seconds or _known(comparisons, samples):
            break
    for c in comparisons:
        found = _ratios(c, samples)
        yield Line(c.name, c.what, estimate(found), len(found), c.limit, "", c.note, tuple(found))


def cpu_time(method: Method, number: int) -> float:
    """Return the CPU seconds of one round of a method on its own."""
    gc.collect()
    start = time.process_time()
    method.run(number)
    return time.process_time() - start


def _turned(methods: Sequence[Method], number: int) -> list[Method]:
    """Return the methods in another order each round: each is first, and each order reversed."""
    shift = (number // 2) % len(methods)
    turned = [*methods[shift:], *methods[:shift]]
    return turned if number % 2 == 0 else turned[::-1]


def _ratios(comparison: Comparison, samples: Samples) -> list[float]:
    over, under = samples[comparison.over], samples[comparison.under]
    return [over[number] / under[number] for number in sorted(over.keys() & under.keys())]


def _known(comparisons: Sequence[Comparison], samples: Samples) -> bool:
    limited = [c for c in comparisons if c.limit is not None]
    found: list[Estimate] = [estimate(_ratios(c, samples)) for c in limited]
    return all(e.half_width <= PRECISION for e in found)
