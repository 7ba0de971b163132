"""The readout from the last block to the logits: the declared parts, else those seen to run."""

from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, combinations
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from steer.network._architecture.architecture import Architecture, in_order
from steer.network._architecture.head import other_rules
from steer.network._architecture.probe import run
from steer.network._architecture.refused import names_in_use, part_name, refused
from steer.network._architecture.tree import NO_NORM, Tree, by_hand, is_norm

_UNEQUAL = "unembed(output of the last block) does not give the model's logits"
_NOTHING = (nn.Dropout, nn.Identity)


@dataclass(frozen=True)
class _Fit:
    """A readout that was tried, with the relative error of its logits."""

    architecture: Architecture
    error: float
    limit: float
    found: str

    @property
    def holds(self) -> bool:
        return self.error <= self.limit


def fit_readout(
    architecture: Architecture, h: Tensor, ids: Tensor, logits: Tensor, named: Set[str]
) -> Architecture:
    """Return the architecture with a readout that gives the model's logits.

    The declared parts are tried first, with the declared rules and with others; then the modules
    that run after the last block, in their order.
    """
    declared = _fitted(architecture, h, logits)
    others = (_fitted(other, h, logits) for other in _seen_to_run(architecture, ids, named))
    for fit in chain([declared], others):
        if fit.holds:
            return replace(fit.architecture, vocab=logits.shape[-1])
    raise refused(
        architecture.model,
        _UNEQUAL,
        found=declared.found,
        expected=f"equal to the model's logits {tuple(logits.shape)} to {declared.limit:.1e}",
        do=by_hand(**names_in_use(architecture)) + "; if they are right, the model changes its "
        "logits in a way for which steer.network._architecture.head has no rule",
    )


def _fitted(architecture: Architecture, h: Tensor, logits: Tensor) -> _Fit:
    """Return the best fit among the declared rules and others."""
    limit = max(1e-5, 4 * max(torch.finfo(t.dtype).eps for t in (h, logits)))
    try:
        raw = replace(architecture, logit_rules=()).unembed(h)
        if not isinstance(raw, Tensor):
            raise TypeError(f"the unembedding gives a {type(raw).__name__}")
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        found = f"{type(error).__name__}: {error}, for {_head(architecture)}"
        return _Fit(architecture, float("inf"), limit, found)
    limit = max(limit, 4 * torch.finfo(raw.dtype).eps)
    config: Any = architecture.model.config
    declared = architecture.logit_rules
    best = _compared(architecture, raw, logits, limit)
    for rules in other_rules(config, config.get_text_config(decoder=True), declared):
        fit = _compared(replace(architecture, logit_rules=rules), raw, logits, limit)
        if fit.holds and fit.error < best.error / 2:  # a soft cap hardly bends small logits
            best = fit
    return best


def _compared(architecture: Architecture, raw: Tensor, logits: Tensor, limit: float) -> _Fit:
    ours = raw
    for rule in architecture.logit_rules:
        ours = rule(ours)
    if ours.shape != logits.shape:
        found = f"a shape of {tuple(ours.shape)}, for {_head(architecture)}"
        return _Fit(architecture, float("inf"), limit, found)
    scale = logits.double().abs().max()
    error = float((ours.to(logits.device).double() - logits.double()).abs().max() / scale)
    found = f"a difference of {error:.1e} of the largest logit, for {_head(architecture)}"
    return _Fit(architecture, error, limit, found)


def _seen_to_run(
    architecture: Architecture, ids: Tensor, named: Set[str]
) -> Iterator[Architecture]:
    """Yield readouts made of modules that run after the last block."""
    *before, last = _after_the_blocks(architecture, ids) or [architecture.unembedding]
    chosen = [  # at most two: a pooler may run there too
        modules for size in (2, 1, 0) for modules in combinations(before, size)
    ]
    for unembedding in dict.fromkeys((architecture.unembedding, last)):
        for modules in chosen:
            norm = [module for module in modules[:1] if is_norm(module)]
            projection = list(modules[len(norm) :])
            if unembedding not in modules and len(projection) < 2:
                candidate = _read_by(architecture, norm, projection, unembedding)
                if all(candidate.names[part] == architecture.names[part] for part in named):
                    yield candidate


def _read_by(
    architecture: Architecture,
    norm: Sequence[nn.Module],
    projection: Sequence[nn.Module],
    unembedding: nn.Module,
) -> Architecture:
    """Return the architecture with another readout; norm and projection are optional."""
    tree = Tree(architecture.model)
    names = {part: name for part, name in architecture.names.items() if part != "projection"}
    names["final_norm"] = tree.name(norm[0]) or "" if norm else NO_NORM
    names["unembedding"] = tree.name(unembedding) or ""
    if projection:
        names["projection"] = tree.name(projection[0]) or ""
    return replace(
        architecture,
        final_norm=norm[0] if norm else nn.Identity(),
        projection=projection[0] if projection else None,
        unembedding=unembedding,
        names=MappingProxyType(in_order(names)),
    )


def _after_the_blocks(architecture: Architecture, ids: Tensor) -> list[nn.Module]:
    """Return the outermost modules that run after the last block, in their order."""
    found: list[nn.Module] = []
    open_: list[nn.Module] = []
    ended = False

    def end(*_: Any) -> None:
        nonlocal ended
        ended = True

    def before(module: nn.Module, _: Any) -> None:
        if ended and not open_ and not isinstance(module, _NOTHING):
            found.append(module)
            open_.append(module)

    def after(module: nn.Module, *_: Any) -> None:
        if open_ and module is open_[-1]:
            open_.pop()

    with ExitStack() as hooks:
        hooks.enter_context(architecture.blocks[-1].register_forward_hook(end))
        for module in architecture.model.modules():
            hooks.enter_context(module.register_forward_pre_hook(before))
            hooks.enter_context(module.register_forward_hook(after))
        run(architecture.model, ids)
    return found


def _head(architecture: Architecture) -> str:
    """Return final norm, projection, unembedding and logit rules as text."""
    parts = [
        part_name(architecture, part)
        for part in ("final_norm", "projection", "unembedding")
        if part in architecture.names
    ]
    return ", ".join(parts + [str(rule) for rule in architecture.logit_rules])
