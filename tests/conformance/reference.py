"""Textbook steering of one unpadded sequence in a full forward without cache, in float64.

It shares no code with the library: positions are indices of the one row, scopes are slices, and
`ablate` is written as projections on nested spans instead of as Gram-Schmidt.
"""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steer import Composition

RANK = {"ablate": 0, "add": 3}


@dataclass(frozen=True)
class Run:
    """Logits `[pos, vocab]`, and the stream `[pos, d_model]` after each block.

    Layer -1 is the input of block 0.
    """

    logits: Tensor
    streams: dict[int, Tensor]


def chosen(scope: str, length: int, prompt: int) -> list[bool]:
    """Which of `length` tokens a scope means when the first `prompt` of them are the prompt."""
    name, start, stop = re.findall(r"(\w+)(?:\[(\d*):(\d*)\])?", scope)[0]
    part = {
        "all": range(length),
        "prompt": range(prompt),
        "response": range(prompt, length),
        "last_prompt": range(prompt - 1, prompt),
    }[name]
    window = range(int(start or 0), int(stop) if stop else length)
    return [p in part and p in window for p in range(length)]


def add(h: Tensor, V: Tensor, c: Tensor) -> Tensor:
    """h + Σ c_k v_k."""
    return h + c @ V


def ablate(h: Tensor, V: Tensor, c: Tensor) -> Tensor:
    """h − Σ_k (s_k − s_{k+1}) P_k h: P_k projects on the span of the k strongest directions.

    A direction counts as new if the relative remainder outside the earlier ones is over 1e-4.
    """
    order = sorted(range(len(c)), key=lambda k: -float(c[k]))
    span: list[Tensor] = []
    steps: list[tuple[float, list[Tensor]]] = []
    for k in order:
        if float(c[k]) > 0 and float(V[k].norm()) > 0:
            unit = V[k] / V[k].norm()
            if float((unit - _project(unit[None], span)[0]).norm()) > 1e-4:
                span = [*span, unit]
                steps.append((float(c[k]), span))
    strengths = [strength for strength, _ in steps] + [0.0]
    removed = torch.zeros_like(h)
    for k, (_, directions) in enumerate(steps):
        removed = removed + (strengths[k] - strengths[k + 1]) * _project(h, directions)
    return h - removed


def _project(h: Tensor, span: Sequence[Tensor]) -> Tensor:
    if not span:
        return torch.zeros_like(h)
    A = torch.stack(list(span), dim=1)
    return h @ (A @ torch.linalg.pinv(A)).T


OPERATORS = {"add": add, "ablate": ablate}


def run(
    hf: Any, ids: Sequence[int], compositions: Sequence[tuple[Composition, int]], prompt: int
) -> Run:
    """Run one sequence under compositions, outermost first.

    Args:
        hf: The unsteered model.
        ids: The sequence.
        compositions: Each with the coefficient row that is this sequence's.
        prompt: How many tokens are the prompt.
    """
    blocks = blocks_of(hf)
    streams: dict[int, Tensor] = {}
    weights: dict[int, Tensor] = {}

    def steer(layer: int, h: Tensor) -> Tensor:
        for k, (composition, row) in enumerate(compositions):
            h = _apply(composition, row, k, layer, h, weights, prompt)
        streams[layer] = h[0].detach()
        return h

    with ExitStack() as stack, torch.no_grad():
        handles = [blocks[0].register_forward_pre_hook(_before(steer), with_kwargs=True)]
        handles += [block.register_forward_hook(_after(steer, i)) for i, block in enumerate(blocks)]
        for handle in handles:
            stack.callback(handle.remove)
        logits = hf(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
    return Run(logits, streams)


def greedy(
    hf: Any,
    prompt: Sequence[int],
    compositions: Sequence[tuple[Composition, int]],
    steps: int,
) -> tuple[list[int], Tensor]:
    """Return new tokens and the logits they were taken from, `steps` full forwards, no stopping."""
    ids, logits = list(prompt), []
    for _ in range(steps):
        logits.append(run(hf, ids, compositions, len(prompt)).logits[-1])
        ids.append(int(logits[-1].argmax()))
    return ids[len(prompt) :], torch.stack(logits)


def _apply(
    composition: Composition,
    row: int,
    key: int,
    layer: int,
    h: Tensor,
    weights: dict[int, Tensor],
    prompt: int,
) -> Tensor:
    c = composition.coefficients[row if composition.per_row else 0].double()
    gate = composition.gate
    if gate is not None:
        if layer == gate.layer:
            distance = (gate.centroids.double() - h[0, prompt - 1].double()).norm(dim=1)
            near = distance <= distance.min() + gate.margin
            weights[key] = torch.tensor(
                [float(near[gate.domains.index(name)]) for name in composition.domains]
            ).double()
        if key in weights:
            c = c * weights[key]
    groups: dict[tuple[int, str], list[tuple[Tensor, Tensor, str]]] = {}
    for k, part in enumerate(composition.parts.values()):
        if layer in part.vector.layers:
            place = (RANK[part.operator], str(part.scope))
            entry = (part.vector.direction(layer).double(), c[k], part.operator)
            groups.setdefault(place, []).append(entry)
    out = h
    for (_, scope), members in sorted(groups.items(), key=lambda item: item[0][0]):
        V = torch.stack([v for v, _, _ in members])
        active = torch.stack([x for _, x, _ in members])
        changed = OPERATORS[members[0][2]](out[0].double(), V, active).to(h.dtype)[None]
        where = torch.tensor(chosen(scope, h.shape[1], prompt))[None, :, None]
        out = torch.where(where, changed, out)
    return out


def blocks_of(hf: Any) -> list[torch.nn.Module]:
    """The decoder blocks: the outermost module list of the tiny text models."""
    lists = [m for m in hf.modules() if isinstance(m, torch.nn.ModuleList)]
    return list(lists[0])


def _before(steer: Any) -> Any:
    def hook(module: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return ((steer(-1, args[0]), *args[1:]), kwargs)
        return (args, {**kwargs, "hidden_states": steer(-1, kwargs["hidden_states"])})

    return hook


def _after(steer: Any, layer: int) -> Any:
    def hook(module: Any, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (steer(layer, output[0]), *output[1:])
        return steer(layer, output)

    return hook
