"""Textbook steering of one unpadded sequence in a full forward without cache, in float64.

It shares no code with the library: positions are indices of the one row, scopes are slices, and
`ablate` is written as projections on nested spans instead of as Gram-Schmidt. A weight site is the
difference of two runs of its module, with the displaced and with the pristine parameter.
"""

import copy
import re
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from steer import Composition, Weight
from steer.algebra import Term, get_operator, tensors
from steer.algebra._scope import PARTS
from steer.algebra._term import dense


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
    }.get(name)
    if part is None:  # no textbook has it: what was registered is taken at its word
        part = [p for p in range(length) if PARTS[name](p, prompt)]
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


def operate(name: str, h: Tensor, V: Tensor, c: Tensor) -> Tensor:
    """One row under an operator; one that no textbook has is taken at its word, in float64."""
    if name in OPERATORS:
        return OPERATORS[name](h, V, c)
    return get_operator(name)(h[None], V, c[None])[0]


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

    for k, (composition, _) in enumerate(compositions):
        if composition.gate is not None and _weight_sites(composition):
            # Its weights meet the prompt before the gate is read: it is read without them.
            others = [*compositions[:k], *compositions[k + 1 :]]
            assert not any(c.gate and _weight_sites(c) for c, _ in others), "one gate of this kind"
            stream = run(hf, ids, others, prompt).streams[composition.gate.layer]
            weights[k] = _decided(composition, stream[prompt - 1])

    with ExitStack() as stack, torch.no_grad():
        for k, (composition, row) in enumerate(compositions):
            c = _active(composition, row, k, weights)
            for handle in _displaced(hf, composition, c, len(ids), prompt):
                stack.callback(handle.remove)
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
    gate = composition.gate
    if gate is not None and layer == gate.layer and key not in weights:
        weights[key] = _decided(composition, h[0, prompt - 1])
    c = _active(composition, row, key, weights)
    groups: dict[tuple[int, str], list[tuple[Tensor, Tensor, str]]] = {}
    for k, part in enumerate(composition.parts.values()):
        if layer in part.vector.layers:
            place = (get_operator(part.operator).rank, str(part.scope))
            entry = (part.vector.direction(layer).double(), c[k], part.operator)
            groups.setdefault(place, []).append(entry)
    out = h
    for (_, scope), members in sorted(groups.items(), key=lambda item: item[0][0]):
        V = torch.stack([v for v, _, _ in members])
        active = torch.stack([x for _, x, _ in members])
        changed = operate(members[0][2], out[0].double(), V, active).to(h.dtype)[None]
        where = torch.tensor(chosen(scope, h.shape[1], prompt))[None, :, None]
        out = torch.where(where, changed, out)
    return out


def _active(composition: Composition, row: int, key: int, weights: dict[int, Tensor]) -> Tensor:
    c = composition.coefficients[row if composition.per_row else 0].float()  # as float32 takes them
    c = c.double()
    return c * weights[key] if key in weights else c


def _decided(composition: Composition, x: Tensor) -> Tensor:
    """What a gate gives for the stream of the last prompt token at its layer."""
    gate = composition.gate
    assert gate is not None
    distance = (gate.centroids.double() - x.double()).norm(dim=1)
    near = distance <= distance.min() + gate.margin
    opened = [float(near[gate.domains.index(name)]) for name in composition.domains]
    return torch.tensor(opened).double()


def _weight_sites(composition: Composition) -> list[str]:
    return [site.name for site in composition.sites if isinstance(site, Weight)]


def _displaced(hf: Any, composition: Composition, c: Tensor, length: int, prompt: int) -> list[Any]:
    """Hooks that add Σ c_k (f(W + Δ_k) − f(W)) at the tokens of each domain's scope."""
    names = {id(p): name for name, p in hf.named_parameters()}
    handles = []
    for module in list(hf.modules()):
        for leaf, parameter in module._parameters.items():
            if parameter is not None and names[id(parameter)] in _weight_sites(composition):
                hook = _adding(composition, c, names[id(parameter)], leaf, length, prompt)
                handles.append(module.register_forward_hook(hook, with_kwargs=True))
    return handles


def _adding(
    composition: Composition, c: Tensor, name: str, leaf: str, length: int, prompt: int
) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:
        twin = _in_double(module)
        args = tuple(_doubled(x) for x in args)
        kwargs = {key: _doubled(x) for key, x in kwargs.items()}
        pristine, out = functional_call(twin, {}, args, kwargs), output.double()
        base = dict(twin.named_parameters(recurse=False))[leaf].detach()
        at = list(output.shape).index(length)  # tokens may stand behind heads, or in rows
        for k, part in enumerate(composition.parts.values()):
            term = part.vector.terms.get(Weight(name))
            if term is None:
                continue
            moved = functional_call(twin, {leaf: base + dense(_in_float64(term))}, args, kwargs)
            where = torch.tensor(chosen(str(part.scope), length, prompt)).double()
            where = where.view([length if d == at else 1 for d in range(output.ndim)])
            out = out + c[k] * where * (moved - pristine)
        return out.to(output.dtype)

    return hook


_DOUBLES: "weakref.WeakKeyDictionary[nn.Module, nn.Module]" = weakref.WeakKeyDictionary()


def _in_double(module: nn.Module) -> nn.Module:
    if module not in _DOUBLES:
        _DOUBLES[module] = copy.deepcopy(module).double()
        _DOUBLES[module]._forward_hooks.clear()
    return _DOUBLES[module]


def _in_float64(term: Term) -> Term:
    return type(term)(**{name: t.double() for name, t in tensors(term).items()})


def _doubled(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


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
