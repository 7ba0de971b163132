"""Frozen records of a vector: how it was made, measured and tuned."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType

from steer.algebra._scope import Scope
from steer.errors import AlgebraError

_SCALE = re.compile(r"scale\((-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)\)")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The identity of the model and tokenizer that a vector belongs to.

    Args:
        model_id: Name or path given at load.
        revision: Commit of the checkpoint, if known.
        n_layers: Number of decoder blocks.
        d_model: Width of the residual stream.
        config: SHA-256 of the text configuration, without what may differ harmlessly.
        tokenizer: SHA-256 of the vocabulary and of a probe text's encoding.
        template: SHA-256 of the chat template (of the plain format if there is none).
    """

    model_id: str
    revision: str | None
    n_layers: int
    d_model: int
    config: str
    tokenizer: str
    template: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a vector was made.

    Args:
        method: Name of the method, for instance `palrs`; `combination` after algebra.
        arguments: The method's arguments, JSON values only; lists are kept as tuples, so that
            the record is immutable to the bottom.
        domain: The domain the pairs belong to, if any.
        pairs: Number of different preference pairs, as far as fingerprints tell.
        pairs_fingerprint: SHA-256 of the pairs, where they are of one recording.
        model: The model it belongs to; None for hand-made vectors, which fit any model of the
            right width.
        license: Licence of the vector, as the maker states it.
        version: Version of this library.
    """

    method: str = "unknown"
    arguments: Mapping[str, object] = field(default_factory=dict)
    domain: str | None = None
    pairs: int = 0
    pairs_fingerprint: str | None = None
    model: ModelInfo | None = None
    license: str | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", _frozen(self.arguments))

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings about the pairs, as in `Activations.warnings`, one sentence each."""
        said = self.arguments.get("warnings")
        return tuple(map(str, said)) if isinstance(said, tuple) else ()

    def __reduce__(self) -> tuple[object, ...]:
        return (Provenance, tuple(thawed(getattr(self, f.name)) for f in fields(self)))


def _frozen(value: object) -> object:
    if isinstance(value, Mapping):
        return MappingProxyType({key: _frozen(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    return value


def thawed(value: object) -> object:
    """Return a frozen JSON value as plain dicts and lists."""
    if isinstance(value, Mapping):
        return {key: thawed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [thawed(item) for item in value]
    return value


def combined(left: Provenance, right: Provenance) -> Provenance:
    """Return the provenance of a sum of two vectors: the values that both share."""
    a, b = left.model, right.model
    if a and b and a.config != b.config:
        raise AlgebraError(
            "vectors of different models cannot be combined",
            found=f"{a.model_id} and {b.model_id}",
            expected="one model configuration",
            do="extract both vectors from the same model",
        )
    recordings = {**_recordings(left), **_recordings(right)}
    unknown = sum(max(p.pairs - sum(_recordings(p).values()), 0) for p in (left, right))
    one = len(recordings) == 1 and not unknown
    warned = tuple(sorted({**dict.fromkeys(left.warnings), **dict.fromkeys(right.warnings)}))
    made_for = left.arguments.get("made_for", right.arguments.get("made_for"))
    return Provenance(
        method="combination",
        arguments={
            **({"pairs": recordings} if recordings and not one else {}),
            **({} if made_for is None else {"made_for": made_for}),
            **({"warnings": warned} if warned else {}),
        },
        domain=left.domain if left.domain == right.domain else None,
        pairs=sum(recordings.values()) + unknown,
        pairs_fingerprint=next(iter(recordings)) if one else None,
        model=a or b,
        license=left.license if left.license == right.license else None,
        version=left.version or right.version,
    )


def _recordings(made: Provenance) -> dict[str, int]:
    """Return the number of pairs by fingerprint, as far as they are known."""
    if made.pairs_fingerprint is not None:
        return {made.pairs_fingerprint: made.pairs}
    listed = made.arguments.get("pairs") if made.method == "combination" else None
    if not isinstance(listed, Mapping):
        return {}
    return {name: n for name, n in listed.items() if isinstance(n, int) and n >= 0}


def recorded(provenance: Provenance, form: str) -> Provenance:
    """Return a provenance with one more entry in the `forms` of its arguments."""
    return _with_forms(provenance, (*_forms(provenance), form))


def multiplied(provenance: Provenance, factor: float) -> Provenance:
    """Return a provenance with one more factor in its `forms`, merged with a factor before it."""
    forms = _forms(provenance)
    before = _SCALE.fullmatch(str(forms[-1])) if forms else None
    if before is not None:
        forms, factor = forms[:-1], float(before[1]) * factor
    if factor != 1.0:
        forms = (*forms, f"scale({factor!r})")
    return _with_forms(provenance, forms)


def _forms(provenance: Provenance) -> tuple[object, ...]:
    forms = provenance.arguments.get("forms", ())
    return forms if isinstance(forms, tuple) else ()


def _with_forms(provenance: Provenance, forms: tuple[object, ...]) -> Provenance:
    others = {name: value for name, value in provenance.arguments.items() if name != "forms"}
    return replace(provenance, arguments={**others, "forms": forms} if forms else others)


def transferred(provenance: Provenance, model: ModelInfo) -> Provenance:
    """Return a provenance for another model that records the first one as `made_for`."""
    before = provenance.model
    if before is None or before == model:
        return replace(provenance, model=model)
    arguments = {"made_for": asdict(before), **provenance.arguments}
    return replace(provenance, model=model, arguments=arguments)


# With fewer pairs chance alone reaches the thresholds: of fair coins 1.2% show one side in 80% of
# 20 throws or more, 11% in 80% of 10.
MIN_PAIRS = 20
# ‖mean d‖² is ‖μ‖² + ‖error‖² on average, so that at 0.5 the cosine with the direction of
# infinitely many pairs is √(1 − 0.5²) = 0.87.
ERROR = 0.5


@dataclass(frozen=True, slots=True)
class LayerStats:
    """Statistics of the direction at one layer.

    Args:
        residual_norm: Mean ‖h‖ over the recorded tokens, in residual units.
        standard_error: Norm of the standard error of the mean difference, in residual units.
        split_half_cosine: Cosine between the mean differences of the two halves of the pairs.
    """

    residual_norm: float | None = None
    standard_error: float | None = None
    split_half_cosine: float | None = None


def noisy_layers(stats: Mapping[int, LayerStats], norms: Mapping[int, float]) -> list[int]:
    """Return the layers at which error/norm is above its threshold, ascending."""
    errors = {layer: found.standard_error for layer, found in stats.items()}
    return [n for n in sorted(norms) if (errors.get(n) or 0.0) > ERROR * norms[n]]


def mean_norms(left: LayerStats | None, right: LayerStats | None) -> LayerStats:
    """Return the statistics of a sum: the mean residual norm, without error bars."""
    norms = [s.residual_norm for s in (left, right) if s and s.residual_norm is not None]
    return LayerStats(sum(norms) / len(norms) if norms else None)


def scaled(stats: LayerStats, factor: float) -> LayerStats:
    """Return the statistics of a direction multiplied by a number."""
    error = stats.standard_error
    return replace(stats, standard_error=None if error is None else error * abs(factor))


@dataclass(frozen=True, slots=True)
class Tuning:
    """The setting that a selection chose for a vector.

    Args:
        layer: The layer chosen; None where the vector was tuned with all of its sites.
        coefficient: The coefficient chosen, dimensionless.
        operator: Name of the operator it was chosen with.
        scope: The scope it was chosen with.
        score: Held-out preference accuracy reached, in [0, 1].
        kl: KL(steered‖unsteered), nats per response token.
        unsteered: Accuracy of the unsteered model on the pairs of `score`, in [0, 1].
    """

    layer: int | None
    coefficient: float
    operator: str = "add"
    scope: Scope = field(default_factory=Scope)
    score: float | None = None
    kl: float | None = None
    unsteered: float | None = None
