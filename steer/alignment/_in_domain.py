"""Residual vectors as weight vectors that act in one domain alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steer._check import number
from steer._progress import progress_bar
from steer.algebra import LowRank, Vector, Weight
from steer.algebra._provenance import recorded
from steer.engine import Batch, unsteered
from steer.engine._base import in_place
from steer.errors import AlignmentError
from steer.model import Model, check_model, exchange_batch
from steer.pairs import Pairs, as_pairs

_Inputs = Mapping[int, list[Float[Tensor, "pos d_in"]]]
_Readers = Mapping[str, Mapping[int, Float[Tensor, " d_in"]]]  # by domain and layer


def in_domain(
    model: Model,
    vectors: Mapping[str, Vector],
    pairs: Pairs,
    *,
    projection: str = "self_attn.o_proj",
    ridge: float = 0.01,
    progress: bool = True,
) -> dict[str, Vector]:
    """Return residual vectors as weight vectors that act where a text is of their domain.

    A residual vector v acts on all prompts alike. As the weight vector v aᵀ at the output
    projection of attention it adds (a·x) v instead, x being what the heads give. a is the ridge
    regression, without intercept, of the domain on x: 1 from the user's text on in texts of the
    domain, 0 in texts of the other domains and in what comes before in all texts alike,

        a = argmin Σ (a·x − y)² + ρ ‖a‖²,  ρ = `ridge` × mean square of x × number of tokens

    So one coefficient per domain holds for all prompts, without a gate. The reading is soft: on
    new texts a·x may average 0.7 in the domain and 0.2 elsewhere, so raise the coefficient and
    measure what is left elsewhere (`steer.measure.off_target`).

    Args:
        model: The model; it must not be steered.
        vectors: Residual vectors by name. The domain of each is its name, if pairs have such a
            domain, else that of its provenance; a domain may have several vectors.
        pairs: Texts to read from: pairs of at least two domains, about 20 of each or more. Both
            answers count.
        projection: Name, within a block, of the linear layer that the heads write through.
        ridge: Regularisation ρ, relative.
        progress: Whether to show a progress bar, if the output is a terminal.

    Returns:
        Weight vectors of rank 1 under the same names.

    Raises:
        AlignmentError: Fewer than two domains, a vector of another domain or with weight sites,
            or a block without such a linear layer.
        ArgumentError: `ridge` is not above 0.
        SteeringError: The model is being steered.
        CapabilityError: The model's engine does not work on its modules.
    """
    check_model(model)
    in_place(model.engine, "reading domains")
    unsteered(model.engine, "in_domain")
    number("ridge", ridge, above=0)
    by_domain = {str(name): part for name, part in as_pairs(pairs).by_domain().items()}
    domains = {name: _domain(name, vector, by_domain) for name, vector in vectors.items()}
    layers = sorted({layer for vector in vectors.values() for layer in vector.layers})
    blocks = model.architecture.names["blocks"]
    modules = {layer: _linear(model, f"{blocks}.{layer}.{projection}") for layer in layers}
    read = _readers(model, by_domain, modules, ridge, progress)
    return {
        name: replace(
            vector,
            terms={
                Weight(f"{blocks}.{layer}.{projection}.weight"): LowRank(
                    vector.direction(layer)[:, None],
                    read[domains[name]][layer].to(vector.direction(layer))[None],
                )
                for layer in vector.layers
            },
            provenance=recorded(vector.provenance, f"in_domain({domains[name]})"),
            stats={},
            tuning=None,
        )
        for name, vector in vectors.items()
    }


def _domain(name: str, vector: Vector, known: Mapping[str, Pairs]) -> str:
    """Return the domain of a vector; refuse what cannot be read."""
    domain = name if name in known else vector.provenance.domain
    if len(known) < 2 or domain not in known:
        raise AlignmentError(
            "there is nothing to tell the domain of a vector from",
            found=f"{name!r} of domain {domain!r}, and pairs of {sorted(known)}",
            expected="pairs of at least two domains, that of the vector among them",
            do="name vectors by their domain, and add pairs of the other domains",
        )
    if len(vector.layers) < len(vector.sites) or -1 in vector.layers:
        raise AlignmentError(
            "only residual vectors after a block can be made to read",
            found=f"{name!r} at {', '.join(map(str, vector.sites[:3]))}",
            expected="residual sites after blocks",
            do="take vector.residual, and leave out the embedding output",
        )
    return str(domain)


def _linear(model: Model, name: str) -> nn.Linear:
    """Return the linear layer of a name, with the width of the stream as its output."""
    modules = dict(model.hf_model.named_modules())
    found = modules.get(name)
    if isinstance(found, nn.Linear) and found.out_features == model.d_model:
        return found
    above = name.rsplit(".", 2)[0]
    there = [n for n, m in modules.items() if n.startswith(above) and isinstance(m, nn.Linear)]
    raise AlignmentError(
        "there is no such linear layer that writes to the residual stream",
        found=f"{name}: {type(found).__name__}",
        expected=f"nn.Linear with {model.d_model} outputs, one of {', '.join(there) or '(none)'}",
        do='name it within the block, for instance projection="attn.c_proj"',
    )


def _readers(
    model: Model,
    pairs: Mapping[str, Pairs],
    modules: Mapping[int, nn.Module],
    ridge: float,
    progress: bool,
) -> _Readers:
    """Return for each domain and layer the regression of the domain on a module's inputs."""
    texts = [
        (column, prompt, answer)
        for column, part in enumerate(pairs.values())
        for prompt, answer in dict.fromkeys(
            (pair.prompt, text) for pair in part for text in (pair.chosen, pair.rejected)
        )
    ]
    batch = exchange_batch(model.chat, [t[1] for t in texts], [t[2] for t in texts])
    columns = enumerate(zip(*batch.ids, strict=False))
    start = next((k for k, ids in columns if len(set(ids)) > 1), 0)  # where texts differ
    inputs: _Inputs = {layer: [] for layer in modules}
    with _recorded(modules, inputs):
        rows = zip(batch.ids, batch.prompt_lengths, strict=True)
        for ids, length in progress_bar(rows, progress=progress, total=len(texts), desc="reading"):
            model.engine.forward(Batch((ids,), (length,)), layers=[max(modules)], logits="none")
    targets = []
    for (column, *_), ids in zip(texts, batch.ids, strict=True):
        target = torch.zeros(len(ids), len(pairs), dtype=torch.float64)
        target[start:, column] = 1.0
        targets.append(target)
    y = torch.cat(targets)
    found: dict[str, dict[int, Tensor]] = {name: {} for name in pairs}
    for layer, parts in inputs.items():
        x = torch.cat(parts).double().cpu()
        gram = x.T @ x
        gram.diagonal().add_(ridge * gram.diagonal().mean())
        for name, direction in zip(pairs, torch.linalg.solve(gram, x.T @ y).T, strict=True):
            found[name][layer] = direction
    return found


@contextmanager
def _recorded(modules: Mapping[int, nn.Module], inputs: _Inputs) -> Iterator[None]:
    """Append what reaches each module, for the one row of each forward."""

    def hook(layer: int) -> Any:
        return lambda module, args: inputs[layer].append(args[0].detach()[0].clone())

    handles = [module.register_forward_pre_hook(hook(layer)) for layer, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
