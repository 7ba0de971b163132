"""Preferences under some compositions; what these share is computed once."""

from collections.abc import Mapping, Sequence

import torch

from steer.composition import Composition
from steer.evaluate.preference import Preference, Reduce
from steer.measure.scores import preferences
from steer.model import Model
from steer.pairs import Pairs
from steer.site import Residual


def at_settings(
    model: Model, compositions: Sequence[Composition], data: Mapping[str, Pairs], reduce: Reduce
) -> list[dict[str, Preference]]:
    """Return the preference by domain under some compositions, each at its own coefficients.

    What they share is computed once where their sites are residual and none has a gate. All come
    from one kernel, so that equal settings have equal margins: the unsteered model is a
    composition at 0.

    Args:
        model: The model; it must not be steered.
        compositions: What to steer with.
        data: Pairs by domain.
        reduce: How scores are made of tokens.

    Raises:
        SteeringError: The model is being steered.
        SelectionError: A score is not finite.
    """
    if len(compositions) > 1 and all(_plain(composition) for composition in compositions):
        joined = _joined(compositions)
        return preferences(model, joined, joined.coefficients, data, reduce)
    return [
        preferences(model, composition, composition.coefficients[:1], data, reduce)[0]
        for composition in compositions
    ]


def _plain(composition: Composition) -> bool:
    residual = all(isinstance(site, Residual) for site in composition.sites)
    return residual and composition.gate is None


def _joined(compositions: Sequence[Composition]) -> Composition:
    """Return one composition of the domains of all, with a row of coefficients for each."""
    parts = {
        f"{k}.{name}": part
        for k, composition in enumerate(compositions)
        for name, part in composition.parts.items()
    }
    rows = torch.block_diag(*(composition.coefficients[:1] for composition in compositions))
    return Composition(parts, rows, per_row=True)
