"""The card of a gate: its domains, and how far apart their centroids lie."""

import math

import torch

from steer.algebra._gate import DomainGate
from steer.show import Bar, Card, Table
from steer.show._card import Cells

_MOST = 40  # centroids shown


def gate_fact(gate: DomainGate) -> str:
    """Return a gate in a line."""
    background = len(gate.centroids) - len(gate.domains)
    words = [" | ".join(gate.domains) + (f" (+ {background} background)" if background else "")]
    words.append(f"read at layer {gate.layer}, margin {gate.margin:g}")
    if gate.accuracy is not None:
        words.append(f"routing accuracy {gate.accuracy:.1%}")
    return ", ".join(words)


def gate_card(gate: DomainGate) -> Card:
    """Return a gate's card."""
    accuracy = "not measured" if gate.accuracy is None else f"{gate.accuracy:.1%}"
    centroids = gate.centroids[:_MOST].detach().double()
    apart = torch.cdist(centroids, centroids)
    apart.fill_diagonal_(float("inf"))
    away, nearest = apart.min(dim=1)
    names = [*gate.domains, *(f"(background {k + 1})" for k in range(len(gate.centroids)))]
    rows: list[Cells] = []
    for k, distance in enumerate(away.tolist()):
        alone = math.isinf(distance)
        other, shown = ("", "–") if alone else (names[int(nearest[k])], f"{distance:.4g}")
        bar = "" if alone else Bar(distance, 0.0, float(away.max()))
        rows.append((names[k], other, shown, f"{float(centroids[k].norm()):.4g}", bar))
    return Card(
        f"DomainGate · {len(gate.domains)} domain{'' if len(gate.domains) == 1 else 's'}",
        (
            ("read at", f"layer {gate.layer}, the last prompt token"),
            ("margin", f"{gate.margin:g}"),
            ("routing accuracy", accuracy),
            ("centroids", f"{len(gate.centroids)} of d_model {gate.centroids.shape[1]}"),
        ),
        (
            Table(
                ("domain", "nearest", "distance", "norm", ""),
                tuple(rows),
                words=2,
                left_out=max(len(gate.centroids) - _MOST, 0),
            ),
        ),
    )
