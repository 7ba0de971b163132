"""The experiments' tables and pictures, the paper's known figures beside them."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import Tensor

from notebooks.experiments.search import COMBINATIONS
from notebooks.experiments.study import Domains, Reached
from steer.demo.data import DOMAINS, LEVELS
from steer.show import Curves, Series
from steer.view._base import figure_of

PAPER = (
    ("combinations of three levels in three domains reached", "22 of 27"),
    ("time of finding a setting against joint tuning", "12 times faster"),
    ("some combinations against joint tuning", "for instance 46% against 100%"),
    ("cost of inference against prompting", "half"),
    ("medical, expert", "95% at coefficient 0.5"),
    ("financial, expert", "85% at coefficient 0.3"),
    ("legal, expert", "100% at coefficient 0.3"),
)
SOURCE = (
    "Of arXiv 2410.19206, partly from secondary sources; which metric some of them are in is not "
    "known. A toy model reproduces the mechanics and not the numbers."
)


def show(found: Domains, console: Console) -> None:
    """Print everything the experiments measured.

    Args:
        found: The results.
        console: Where to print.
    """
    for kind in ("weights", "residual"):
        for domain in DOMAINS:
            console.print(_moved(found, kind, domain))
    console.print(_reached(found))
    for one in found.reached:
        if one.how == "grid":
            console.print(_combinations(one))
    console.print(_transfer(found))
    console.print(_costs(found))
    paper = Table(title="The paper's figures that are known", caption=SOURCE)
    paper.add_column("what")
    paper.add_column("paper")
    for row in PAPER:
        paper.add_row(*row)
    console.print(paper)
    times = Table("step", "seconds", title="Time")
    for step, seconds in found.seconds.items():
        times.add_row(step, f"{seconds:.1f}")
    console.print(times)


def _moved(found: Domains, kind: str, domain: str) -> Table:
    table = Table(
        title=f"{kind}: {domain} moved, no gate",
        caption="avoidance / generic / expert in percent: likeliest reference answer │ judged",
    )
    table.add_column("coef", justify="right")
    for asked in DOMAINS:
        table.add_column(f"{asked} questions", justify="right")
    likely, spoken = found.likelihood[kind, domain], found.judged[kind, domain]
    for k, value in enumerate(found.lambdas):
        cells = [f"{_levels(likely[k, d])} │ {_levels(spoken[k, d])}" for d in range(len(DOMAINS))]
        table.add_row(f"{value:+.1f}", *cells)
    return table


def _levels(shares: Tensor) -> str:
    return "/".join(f"{100 * x:3.0f}" for x in shares.tolist())


def _reached(found: Domains) -> Table:
    table = Table(
        title="Combinations of three levels in three domains reached",
        caption="at least 90% of the answers to test questions at the wanted level in all "
        f"three domains; gate: {found.routed:.1%} routed rightly; the paper: 22 of 27, no gate; "
        "two domains: share of answers right to prompts that ask about two",
    )
    words = ("vectors", "gate", "search")
    for name in (*words, "settings", "CPU s", "reached", "two domains"):
        table.add_column(name, justify="left" if name in words else "right")
    for one in found.reached:
        table.add_row(
            one.kind,
            "yes" if one.gated else "no",
            one.how,
            str(one.found.evaluated),
            f"{one.seconds:.1f}",
            f"{one.count} of {len(COMBINATIONS)}",
            f"{float(one.two_domains.mean()):.0%}",
        )
    return table


def _combinations(one: Reached) -> Table:
    gate = "gated" if one.gated else "no gate"
    table = Table(title=f"{one.kind}, {gate}: setting and share of each combination")
    table.add_column("medical / legal / financial")
    table.add_column("coefficients", justify="right")
    table.add_column("search", justify="right")
    table.add_column("test", justify="right")
    for k, wanted in enumerate(COMBINATIONS):
        coefficients = ", ".join(f"{c:+.2f}" for c in one.found.settings[k].tolist())
        table.add_row(
            " / ".join(wanted),
            coefficients,
            f"{float(one.found.shares[k]):.0%}",
            f"{float(one.test[k]):.0%}",
        )
    return table


def _transfer(found: Domains) -> Table:
    table = Table(
        title="On the safety-tuned sibling: judged level in the domain that is moved",
        caption="avoidance / generic / expert in percent",
    )
    table.add_column("coef", justify="right")
    for domain in DOMAINS:
        table.add_column(domain, justify="right")
    for k, value in enumerate(found.lambdas_transfer):
        cells = [_levels(found.transfer[d][k, i]) for i, d in enumerate(DOMAINS)]
        table.add_row(f"{value:+.1f}", *cells)
    return table


def _costs(found: Domains) -> Table:
    joint, asked = found.joint, found.prompting
    table = Table("what", "measured", title="Costs")
    wanted = " / ".join(joint.wanted)
    table.add_row(
        f"joint preference-tuning for {wanted}",
        f"{joint.seconds:.1f} s of CPU time, {joint.share:.0%} in the least domain",
    )
    for one in found.reached:
        if one.gated:
            each = one.seconds / len(COMBINATIONS)
            table.add_row(
                f"finding one of 27 settings: {one.kind}, gated, {one.how}",
                f"{each:.2f} s, {joint.seconds / each:.0f} times less",
            )
    table.add_row(
        "prompt with a system message instead",
        f"{asked.tokens:.1f} tokens for {asked.tokens_plain:.1f}; "
        f"{asked.seconds / asked.seconds_steered:.2f} times the CPU time of steering",
    )
    return table


def draw(found: Domains, path: Path) -> None:
    """Draw the judged level over the coefficient, for each domain moved and asked.

    Args:
        found: The results.
        path: Where to write the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    rows = [[_dose(found, kind, domain) for domain in DOMAINS] for kind in ("weights", "residual")]
    figure = figure_of(rows)
    for ax in figure.axes:
        ax.get_legend().remove()
        ax.label_outer()
    names = figure.axes[0].get_legend_handles_labels()
    figure.legend(*names, title="judged level", loc="outside right center")
    figure.savefig(path, dpi=150)


def _dose(found: Domains, kind: str, domain: str) -> Curves:
    series = {}
    for hue, (i, level) in zip((1, 6, 0), enumerate(LEVELS), strict=True):
        shares = 100 * found.judged[kind, domain][:, :, i]
        own = DOMAINS.index(domain)
        series[level] = Series(_points(found.lambdas, shares[:, own]), hue=hue)
        faint = [
            (*_points(found.lambdas, shares[:, k]), (math.nan, math.nan))
            for k in range(len(DOMAINS))
            if k != own
        ]
        other = tuple(point for line in faint for point in line)
        series[f"{level}, other domains"] = Series(other, hue=hue, faint=True)
    title, limits = f"{domain}, {kind}", (-4.0, 104.0)
    return Curves("share of answers (%)", "coefficient", series, limits=limits, title=title)


def _points(places: Sequence[float], values: Tensor) -> tuple[tuple[float, float], ...]:
    return tuple(zip(map(float, places), values.tolist(), strict=True))
