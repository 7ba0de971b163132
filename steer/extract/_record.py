"""One pass over preference pairs: the residual stream at all layers, domains and positions."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import torch

from steer._check import as_layers, integer, one_of
from steer._progress import progress_bar
from steer.engine import unsteered
from steer.engine._base import check_evaluating, in_place
from steer.engine._layout import Place, unique_tokens
from steer.engine._packing import Packing, packing_of
from steer.engine._reading import Means, device_of, keep_freed_memory, read_packed, read_padded
from steer.errors import RecordingError
from steer.extract._activations import Activations
from steer.extract._data_checks import warn_of
from steer.extract._moments import KeptPairs, Moments
from steer.extract._positions import DEFAULT_AT, At, Unit, plan
from steer.extract._responses import Responses
from steer.model import Model, check_model
from steer.network import Architecture
from steer.network._positions import position_limit, scaled_by_length
from steer.pairs import Pair, Pairs, as_pairs

_READ_BYTES = 32 * 2**20  # of averages held at once, before they are merged into the moments
_MAX_TOKENS = {"cpu": 1024}
_MAX_TOKENS_ELSEWHERE = 8192
_SORTED = 8  # padded batches whose sequences are sorted by length together
Read = Callable[[Sequence[Sequence[int]], Sequence[Place]], Means]
_Key = tuple[str | None, str]


def record(
    model: Model,
    pairs: Iterable[Pair],
    at: At = DEFAULT_AT,
    *,
    layers: Sequence[int] | None = None,
    keep: Literal["means", "pairs"] = "means",
    progress: bool = True,
    max_tokens: int | None = None,
    packing: bool | None = None,
) -> Activations:
    """Record the residual stream of preference pairs in one pass: all layers, domains, positions.

    Positions are `template` (the response alone as the user's message, read at each template
    token after it, labelled `template[-1]`, `template[-2]`, …; arXiv 2509.23982), such a label,
    `response_mean`, `response_first`, `response_last`, `prompt_last` (the token before the
    response), or a function from an `Exchange` to the indices of the tokens to average. The
    default reads `template` and `response_mean`, because the better one depends on the behaviour;
    `steer.select` chooses among all recorded positions.

    A `steer.errors.DataWarning` lists problems of the pairs that weaken a vector, for domains of at
    least 20 pairs; `Activations.warnings` and the card repeat them.

    The result holds float64 moments, domains × positions × layers × d_model, and with
    `keep="pairs"` also the activations of single pairs in float32, which `reliability`, some views
    and methods such as PCA need. Texts of one forward share the computation of a common prefix.

    Args:
        model: The model, in evaluation mode and not steered; it is not changed.
        pairs: The pairs.
        at: One position or several.
        layers: Layers to record (block outputs, 0-based), all by default. The forward stops after
            the last one.
        keep: `means`, or `pairs` to keep the activations of single pairs as well, which take 8
            bytes × pairs × positions × layers × d_model.
        progress: Whether to show a progress bar, if the output is a terminal.
        max_tokens: Tokens per forward; a longer text runs alone. The default is 1024 on a CPU,
            where larger batches exceed the caches, and 8192 elsewhere.
        packing: Whether to pack texts into one row; None packs where the model can
            (see `packing_report`).

    Returns:
        The moments, and the single pairs if they are kept.

    Raises:
        RecordingError: No pairs, an unknown position or layer, a model in training mode, a text
            longer than the model's positions, values that are not finite, or `packing=True` for a
            model that does not support it.
        SelectionError: The first argument is not a `Model`.
        ArgumentError: Pairs or layers that are not a sequence, layers that are not integers,
            `max_tokens` below 1, or an unknown `keep`.
        SteeringError: The model is being steered.
        CapabilityError: The model's engine does not work on its modules.
        TextError: A pair cannot be encoded.
        PairsError: Some pairs name a domain and others none.
    """
    check_model(model)
    unsteered(model.engine, "record")
    found = recorded(
        model,
        pairs,
        at,
        layers=layers,
        keep=keep,
        progress=progress,
        max_tokens=max_tokens,
        packing=packing,
    )
    warn_of(found.warnings)
    return found


def recorded(
    model: Model,
    pairs: Iterable[Pair],
    at: At,
    *,
    layers: Sequence[int] | None = None,
    keep: Literal["means", "pairs"] = "means",
    progress: bool = True,
    max_tokens: int | None = None,
    packing: bool | None = None,
) -> Activations:
    """Record as `record` does, but with whatever steers the model, and without warnings."""
    in_place(model.engine, "recording")
    pairs = as_pairs(pairs)
    architecture = model.architecture
    wanted = _checked(architecture, pairs, layers)
    one_of("keep", keep, ("means", "pairs"))
    domains: tuple[str | None, ...] = pairs.domains or (None,)
    positions, units = plan(model.chat, pairs, at)
    longest = max(len(ids) for unit in units for ids in unit.sequences)
    if max_tokens is None:
        max_tokens = _MAX_TOKENS.get(device_of(architecture).type, _MAX_TOKENS_ELSEWHERE)
    max_tokens = integer("max_tokens", max_tokens, least=1)
    path, read = _reader(architecture, wanted, longest, max_tokens, packing)
    room = max(1, _READ_BYTES // (8 * len(wanted) * architecture.d_model))
    limit = max_tokens if path == "packed" else _SORTED * max_tokens
    moments: dict[_Key, Moments] = {}
    kept: dict[_Key, list[KeptPairs]] | None = {} if keep == "pairs" else None
    keep_freed_memory()
    with progress_bar(
        progress=progress, total=len(units), desc="recording", unit="pair", leave=False
    ) as bar:
        for batch in _batches(units, limit, room):
            _take(moments, kept, batch, positions, _read(batch, read))
            bar.update(len(batch))
    _check_finite(moments, wanted)
    parts = pairs.by_domain()
    return Activations(
        {(d, p): moments[d, p] for d in domains for p in positions},
        wanted,
        {domain: (part.fingerprint,) for domain, part in parts.items()},
        getattr(model, "info", None),
        path,
        None if kept is None else {key: first.join(*rest) for key, (first, *rest) in kept.items()},
        {d: Responses.of((p.chosen, p.rejected) for p in part) for d, part in parts.items()},
    )


def packing_report(model: Model, longest: int = 32) -> Packing:
    """Return whether recording packs this model's texts, and if not, why.

    Args:
        model: The model.
        longest: Longest text to be recorded, in tokens.
    """
    check_model(model)
    return packing_of(model.architecture, longest)


def _checked(
    architecture: Architecture, pairs: Pairs, layers: Sequence[int] | None
) -> tuple[int, ...]:
    """Return the layers to record in ascending order, after checking model, pairs and layers."""
    if not len(pairs):
        raise RecordingError(
            "there are no pairs to record",
            found="0 pairs",
            expected="at least one pair",
            do="check the file that they were loaded from",
        )
    check_evaluating(architecture, RecordingError)
    return layers_of(architecture, layers)


def layers_of(architecture: Architecture, layers: Sequence[int] | None) -> tuple[int, ...]:
    """Return layers of a model in ascending order, each once; None stands for all of them."""
    everything = range(architecture.n_layers)
    wanted = as_layers(everything if layers is None else layers)
    if not wanted or not all(layer in everything for layer in wanted):
        raise RecordingError(
            "there is no such layer",
            found=f"layers={layers!r}",
            expected=f"layers from 0 to {architecture.n_layers - 1}",
            do="count the blocks from 0; layer l is the output of block l",
        )
    return tuple(sorted(set(wanted)))


def _reader(
    architecture: Architecture,
    layers: Sequence[int],
    longest: int,
    max_tokens: int,
    packing: bool | None,
) -> tuple[str, Read]:
    """Return the name of the forward path, packed or padded with the reason, and its function."""
    limit = position_limit(architecture)
    if limit is not None and longest > limit:
        raise RecordingError(
            "a text is longer than the model's positions",
            found=f"{longest} tokens",
            expected=f"at most {limit}",
            do="omit the longest pairs, or shorten them",
        )
    found = Packing("asked for by packing=False", longest)
    if packing is not False:
        found = packing_of(architecture, longest)
    if packing and not found.packed:
        raise RecordingError(
            "this model cannot be packed",
            found=found.reason,
            expected="packed forwards that equal plain ones",
            do="omit packing: texts then run in padded batches",
        )
    if found.packed:
        return "packed", lambda ids, places: read_packed(architecture, ids, places, layers)
    width = 1 if scaled_by_length(architecture, longest) else max_tokens
    return str(found), lambda ids, places: read_padded(
        architecture, ids, places, layers, max_tokens=width
    )


def _batches(units: Sequence[Unit], max_tokens: int, room: int) -> Iterator[list[Unit]]:
    """Yield units in order, in even batches of at most `max_tokens` tokens and `room` averages."""
    costs = [unique_tokens(unit.sequences) for unit in units]
    even = sum(costs) / math.ceil(sum(costs) / max_tokens)
    batch: list[Unit] = []
    tokens = places = 0
    for unit, more in zip(units, costs, strict=True):
        enough = tokens + more > max_tokens or tokens + more / 2 > even
        if batch and (enough or places + len(unit.places) > room):
            yield batch
            batch, tokens, places = [], 0, 0
        batch.append(unit)
        tokens, places = tokens + more, places + len(unit.places)
    yield batch


def _read(batch: Sequence[Unit], read: Read) -> Means:
    """Return the averages of a batch: for each unit its places, in order."""
    sequences: list[tuple[int, ...]] = []
    places: list[Place] = []
    for unit in batch:
        places += (Place(p.sequence + len(sequences), p.tokens) for p in unit.places)
        sequences += unit.sequences
    return read(sequences, places)


def _take(
    moments: dict[_Key, Moments],
    kept: dict[_Key, list[KeptPairs]] | None,
    batch: Sequence[Unit],
    positions: Sequence[str],
    means: Means,
) -> None:
    """Merge the averages of a batch into the moments, and append them to the kept pairs."""
    sides = (len(batch), 2, len(positions))
    residual, norm = means.residual.unflatten(0, sides), means.norm.unflatten(0, sides)
    of_domain: dict[str | None, list[int]] = {}
    for i, unit in enumerate(batch):
        of_domain.setdefault(unit.domain, []).append(i)
    for domain, own in of_domain.items():
        numbers = [batch[i].number for i in own]
        for p, position in enumerate(positions):
            chosen, rejected = residual[own, 0, p], residual[own, 1, p]
            new = Moments.of(chosen, rejected, norm[own, :, p].mean(dim=1), numbers)
            old = moments.get((domain, position))
            moments[domain, position] = new if old is None else old.merge(new)
            if kept is not None:
                single = KeptPairs(chosen.float(), rejected.float())
                kept.setdefault((domain, position), []).append(single)


def _check_finite(moments: Mapping[_Key, Moments], layers: Sequence[int]) -> None:
    for (domain, position), found in moments.items():
        bad = ~torch.isfinite(found.mean_chosen + found.mean_rejected).all(dim=-1)
        if bad.any():
            raise RecordingError(
                "the residual stream is not finite",
                found=f"layer {layers[int(bad.nonzero()[0])]}, {position}, domain {domain!r}",
                expected="finite numbers",
                do="load the model with dtype=torch.float32 or torch.bfloat16",
            )
