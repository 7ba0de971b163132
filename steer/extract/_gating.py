"""Fitting a domain gate on prompts, and measuring its routing accuracy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import integer
from steer._progress import progress_bar
from steer.algebra import DomainGate
from steer.engine import unsteered
from steer.errors import CompositionError
from steer.model import Model, check_model
from steer.network import as_prompts
from steer.pairs import Pair, Pairs, Prompt, as_pairs

_AT_ONCE = 32  # prompts of one call, after which the bar moves
PromptsByDomain = Pairs | Sequence[Pair] | Mapping[str, Sequence[Prompt]]


def domain_gate(
    model: Model,
    prompts: PromptsByDomain,
    *,
    layer: int,
    held_out: PromptsByDomain | None = None,
    background: Sequence[Prompt] = (),
    margin: float = 0.0,
    progress: bool = True,
) -> DomainGate:
    """Fit the gate that opens a domain for the prompts nearest to its mean prompt.

    c_k = mean of the residual stream at `layer`, at the last prompt token, over domain k's prompts.
    Blocks above that layer are not run.

    Args:
        model: The model; it must not be steered.
        prompts: Pairs that name their domains, or prompts by domain.
        layer: The block whose output is read; at or below the first steered layer.
        held_out: Prompts that the centroids are not made from, to measure the routing accuracy.
        background: Prompts of no domain; a prompt nearest to their mean opens no gate.
        margin: A domain also opens if its centroid is at most this much farther away than the
            nearest, in residual units.
        progress: Whether to show a progress bar, if the output is a terminal.

    Returns:
        The gate; its `accuracy` is the share of held-out prompts that open their domain alone.

    Raises:
        CompositionError: No domain, a domain without prompts, or one domain and no background.
        ArgumentError: No such layer, or prompts that are one text instead of a sequence.
        SteeringError: The model is being steered.
        CapabilityError: The model is in training mode.
    """
    check_model(model)
    unsteered(model.engine, "domain_gate")
    do = "take a layer at or below the first steered one; -1 is the embedding output"
    layer = integer("layer", layer, least=-1, most=model.n_layers - 1, do=do)
    grouped, background = _by_domain(prompts), as_prompts(background, "background prompts")
    if len(grouped) == 1 and not background:
        raise CompositionError(
            "a gate of one domain has nothing to choose between",
            found=f"prompts of {next(iter(grouped))!r} alone",
            expected="prompts of at least two domains, or background prompts of no domain",
            do="add the other domains' prompts, or background=steer.measure.NEUTRAL_PROMPTS",
        )
    texts = [*grouped.values(), *([background] if background else [])]
    with _bar("gate", texts, progress) as bar:
        read = [last_prompt_activations(model, asked, layer, bar.update) for asked in texts]
    means = torch.stack([rows.mean(dim=0) for rows in read])
    gate = DomainGate(tuple(grouped), means.float(), layer, margin)
    if held_out is None:
        return gate
    return replace(gate, accuracy=routing_accuracy(model, gate, held_out, progress=progress))


def routing_accuracy(
    model: Model, gate: DomainGate, prompts: PromptsByDomain, *, progress: bool = True
) -> float:
    """Return the share of prompts that open their own domain and no other.

    Args:
        model: The model; it must not be steered.
        gate: The gate.
        prompts: Pairs that name their domains, or prompts by domain.
        progress: Whether to show a progress bar, if the output is a terminal.

    Returns:
        A share in [0, 1].

    Raises:
        CompositionError: A domain that the gate does not know.
        SteeringError: The model is being steered.
        CapabilityError: The model is in training mode.
    """
    check_model(model)
    unsteered(model.engine, "routing_accuracy")
    grouped, right = _by_domain(prompts), 0
    with _bar("routing", [*grouped.values()], progress) as bar:
        for domain, asked in grouped.items():
            wanted = torch.zeros(len(gate.domains))
            wanted[gate.columns([domain])] = 1.0
            opened = gate(last_prompt_activations(model, asked, gate.layer, bar.update))
            right += int((opened == wanted).all(dim=1).sum())
    return right / sum(map(len, grouped.values()))


def last_prompt_activations(
    model: Model,
    prompts: Sequence[Prompt],
    layer: int,
    tell: Callable[[int], object] = lambda _: None,
) -> Float[Tensor, "batch d_model"]:
    """Return the residual stream of each prompt's last token at a layer."""
    rows: list[Tensor] = []
    for start in range(0, len(prompts), _AT_ONCE):
        part = prompts[start : start + _AT_ONCE]
        rows += [row[0, -1].double().cpu() for row in model.activations(part, layers=[layer])]
        tell(len(part))
    return torch.stack(rows)


def _bar(doing: str, texts: Sequence[Sequence[Prompt]], progress: bool) -> Any:
    """Return a progress bar over prompts."""
    return progress_bar(progress=progress, total=sum(map(len, texts)), desc=doing, unit="prompt")


def _by_domain(prompts: PromptsByDomain) -> dict[str, list[Prompt]]:
    if isinstance(prompts, Mapping):
        grouped = {d: as_prompts(asked, f"prompts of {d!r}") for d, asked in prompts.items()}
    else:
        pairs = as_pairs(prompts)
        of_domain = pairs.by_domain()
        grouped = {d: [pair.prompt for pair in of_domain[d]] for d in pairs.domains}
    empty = [domain for domain, asked in grouped.items() if not asked]
    if not grouped or empty:
        raise CompositionError(
            "a gate needs prompts of every domain",
            found=f"domains {list(grouped)}, without prompts: {empty}",
            expected="at least one domain, and prompts for each",
            do="pass pairs with a domain: Pairs.load(..., domain=...) or a column 'domain'",
        )
    return grouped
