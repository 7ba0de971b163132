"""The gradient of the preference margin in the residual stream, as a direction."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import one_of
from steer._progress import progress_bar
from steer.algebra import (
    Direction,
    LayerStats,
    Provenance,
    Residual,
    Scope,
    Site,
    Term,
    Vector,
    parse_scope,
)
from steer.engine import Batch, unsteered
from steer.engine._branches.scores import token_logprobs
from steer.engine._gradients import text_gradients
from steer.errors import RecordingError
from steer.extract._record import layers_of
from steer.model import Model, check_model, exchange_batch
from steer.pairs import Pairs, as_pairs


def preference_gradient(
    model: Model,
    pairs: Pairs,
    *,
    layers: Sequence[int] | None = None,
    scope: Scope | str = "all",
    reduce: str = "mean",
    progress: bool = True,
) -> Vector:
    """Return the direction that raises the preference margin fastest, at each layer.

    g_l = mean over pairs of Σ_t ∂m/∂h_{l,t}, with m = score(chosen) − score(rejected) and t over
    the tokens of the scope; v_l = g_l ‖h_l‖ / ‖g_l‖, ‖h_l‖ the mean norm of the stream at those
    tokens. To first order the displacement c v_l changes the mean margin by c ⟨g_l, v_l⟩, and no
    other vector of its norm changes it more. It takes one forward and backward per pair.

    Args:
        model: The model; it must not be steered.
        pairs: Preference pairs of one domain.
        layers: Layers (block outputs, 0-based); by default all.
        scope: The tokens that will be steered.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
        progress: Whether to show a progress bar.

    Returns:
        A vector in float32, in residual units, with the standard errors over pairs.

    Raises:
        RecordingError: There are no pairs, several domains, no such layer, or no gradient at a
            layer.
        ArgumentError: `reduce` is neither mean nor sum, or layers are no integers.
        SteeringError: The model is being steered.

    Reference:
        arXiv 2603.06495 moves activations as a gradient step on examples would; this is the step's
        direction itself, taken once for all prompts.
    """
    check_model(model)
    unsteered(model.engine, "preference_gradient")
    one_of("reduce", reduce, ("mean", "sum"))
    pairs, where = as_pairs(pairs), parse_scope(scope)
    if not len(pairs) or len(pairs.domains) > 1:
        raise RecordingError(
            "a gradient needs the pairs of one domain",
            found=f"{len(pairs)} pairs of domains {list(pairs.domains)}",
            expected="at least one pair, and one domain",
            do="pass pairs.of_domain(name)",
        )
    at = layers_of(model.architecture, layers)
    prompts = [pair.prompt for pair in pairs]
    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    batch = exchange_batch(model.chat, prompts + prompts, answers)
    gradients = torch.zeros(len(batch.ids), len(at), model.d_model, dtype=torch.float64)
    norms = torch.zeros(len(batch.ids), len(at), dtype=torch.float64)
    score = partial(response_score, batch, reduce == "mean")
    with progress_bar(progress=progress, total=len(batch.ids), desc="gradient", unit="text") as bar:
        for (one,) in text_gradients(model.architecture, batch, at, where, [score]):
            for k in range(len(at)):
                gradients[one.row, k] = one.gradient[k].double().sum(0).cpu()
                norms[one.row, k] = one.stream[k].double().norm(dim=-1).mean().cpu()
            bar.update()
    return _vector(model, pairs, at, gradients, norms, {"scope": str(where), "reduce": reduce})


def response_score(
    batch: Batch, mean: bool, row: int, logits: Float[Tensor, "pos vocab"]
) -> Tensor:
    """Return the log-probability of a response, per token or summed."""
    own = token_logprobs(logits, batch.ids[row][batch.prompt_lengths[row] :])
    return own.mean() if mean else own.sum()


def _vector(
    model: Model,
    pairs: Pairs,
    layers: Sequence[int],
    gradients: Float[Tensor, "text layer d_model"],
    norms: Float[Tensor, "text layer"],
    arguments: dict[str, object],
) -> Vector:
    """Return the mean gradients of the margins as directions with the norm of the stream."""
    chosen, rejected = gradients.chunk(2)
    margins, lengths = chosen - rejected, norms.nanmean(dim=0)
    means = margins.mean(dim=0)
    more = len(pairs) > 1
    errors = margins.std(dim=0, correction=int(more)).norm(dim=-1) / len(pairs) ** 0.5
    sizes = means.norm(dim=-1)
    if not bool((sizes > 0).all()) or not bool(torch.isfinite(sizes).all()):
        raise RecordingError(
            "the preference margin has no gradient",
            found=f"gradients of norm 0 or not finite at layers {list(layers)}",
            expected="answers whose tokens depend on the tokens of the scope",
            do='use scope="all", and pairs whose answers differ',
        )
    factors = lengths / sizes
    stats = {
        layer: LayerStats(
            residual_norm=float(lengths[k]),
            standard_error=float(errors[k] * factors[k]) if more else None,
        )
        for k, layer in enumerate(layers)
    }
    provenance = Provenance(
        method="preference_gradient",
        arguments=arguments,
        domain=next(iter(pairs.domains), None),
        pairs=len(pairs),
        pairs_fingerprint=pairs.fingerprint,
        model=model.info,
    )
    terms: dict[Site, Term] = {
        Residual(layer): Direction((means[k] * factors[k]).float())
        for k, layer in enumerate(layers)
    }
    return Vector(terms, provenance, stats)
