"""The parts that are merged into a checkpoint, and the deltas that they add to its tensors."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from steer._check import as_list
from steer.algebra import Vector, Weight, compose
from steer.algebra._coefficients import number
from steer.algebra._file.file import FORMAT_VERSION, KEY
from steer.errors import CheckpointError, CompositionError, MergeError
from steer.merge._pristine import same_bits
from steer.merge._rounding import Delta, Difference
from steer.network import Checkpoint
from steer.network._compatibility import (
    check_vector_fits_model,
    config_differences,
    refuse_or_warn,
    text_differences,
)
from steer.network._fingerprint import config_info, text_marks, tokenizer_in
from steer.network._parameters.layout import FLOATS, Layout, aliases_of, layout_of, listed
from steer.store import path_of
from steer.store._described import check_tensor, reading

Given = Vector | str | Path
Mergeable = Vector | Checkpoint
TensorDeltas = dict[str, list[tuple[Delta, float]]]


def paired(parts: Sequence[tuple[Given, float]]) -> list[tuple[Given, float]]:
    """Return the parts with their coefficients as plain floats."""
    return [_pair(part) for part in as_list("parts", parts)]


def _pair(part: object) -> tuple[Given, float]:
    pair = tuple(part) if isinstance(part, tuple | list) else ()
    with suppress(CompositionError):
        if len(pair) == 2 and isinstance(pair[0], Given):
            coefficient = number(pair[1])
            if math.isfinite(coefficient):
                return pair[0], coefficient
    raise MergeError(
        "a part to merge must be a pair with a finite number",
        found=f"{type(part).__name__} {part!r}"[:120],
        expected="a vector, a file, a folder or an id, and its coefficient",
        do="pass pairs: merge_checkpoint(model, [(vector, 0.8)], out); strings are not converted",
    )


def opened(part: Given) -> Mergeable:
    """Return a part with its tensors on disk: a vector, a mapped vector file, or a checkpoint."""
    if isinstance(part, Vector):
        return part
    path = path_of(part, CheckpointError)
    return mapped_vector(path) if path.is_file() else Checkpoint.open(part)


def mapped_vector(path: Path) -> Vector:
    """Return a validated vector whose tensors are views of the mapped file."""
    from safetensors import safe_open

    from steer.algebra._file.document import VectorRecord, build_vector

    tensors = {}
    with (
        reading(path, KEY, FORMAT_VERSION, VectorRecord) as found,
        safe_open(path, framework="pt") as file,
    ):
        for name, info in found.record.tensors.items():
            tensors[name] = file.get_tensor(name)
            check_tensor(name, tensors[name], info.sha256)
        return build_vector(found.record, tensors)


def deltas_of(
    base: Checkpoint, parts: Sequence[tuple[Mergeable, float]], *, strict: bool = True
) -> TensorDeltas:
    """Return the deltas of every tensor that changes, each with its coefficient."""
    _check_float(base)
    added_to: TensorDeltas = {}
    vectors = [part for part, _ in parts if isinstance(part, Vector)]
    layout = _fitting(base, vectors, strict=strict) if vectors else None
    for part, coefficient in parts:
        if isinstance(part, Vector):
            added = _of_vector(part, layout) if layout else {}
        else:
            added = _of_checkpoint(base, part, strict=strict)
        for name, delta in added.items():
            added_to.setdefault(name, []).append((delta, coefficient))
    return added_to


def _check_float(checkpoint: Checkpoint) -> None:
    if checkpoint.config.get("quantization_config"):
        raise MergeError(
            f"{checkpoint.folder}: quantised weights cannot be merged",
            found="a quantization_config in config.json",
            expected="weights in bfloat16, float16 or float32",
            do="merge into the unquantised model, and quantise the result",
        )


def _fitting(base: Checkpoint, vectors: Sequence[Vector], *, strict: bool) -> Layout:
    layout, tokenizer = layout_of(base), tokenizer_in(base.folder)
    info = config_info(base.folder.name, None, layout.model.config, tokenizer)
    for vector in vectors:
        if vector.layers:
            raise MergeError(
                "a residual site cannot be merged into weights",
                found=f"layers {', '.join(map(str, vector.layers))}",
                expected="weight sites only",
                do="merge vector.weight, and steer with vector.residual",
            )
        domain = vector.provenance.domain or "vector"
        check_vector_fits_model(compose({domain: vector}), info, layout.model, strict=strict)
    return layout


def _of_vector(vector: Vector, layout: Layout) -> Mapping[str, Delta]:
    """Return the terms by tensor name; a tied weight that is stored twice gets its term twice."""
    other_names: dict[str, list[str]] = {}
    for alias, name in aliases_of(layout.model).items():
        other_names.setdefault(name, []).append(alias)
    found: dict[str, Delta] = {}
    for site, term in vector.terms.items():
        if not isinstance(site, Weight):
            continue
        if site.name in layout.converters:
            raise MergeError(
                f"{site.name} is stored in pieces",
                found=f"{len(layout.sources[site.name])} tensors: {layout.sources[site.name][0]} …",
                expected="a parameter that is one tensor of the checkpoint",
                do="name the aligned checkpoint in place of its vector",
            )
        for name in (site.name, *other_names.get(site.name, ())):
            for stored in layout.sources.get(name, ()):
                found[stored] = term
    return found


def _of_checkpoint(base: Checkpoint, aligned: Checkpoint, *, strict: bool) -> Mapping[str, Delta]:
    """Return the differences by tensor name; the models' classes are built only if names differ."""
    _check_float(aligned)
    twins = _twins(base, aligned)
    lines = [
        f"{name}: {tuple(base.tensor(name).shape)} and {tuple(aligned.tensor(twins[name]).shape)}"
        for name in base.names
        if name in twins and base.tensor(name).shape != aligned.tensor(twins[name]).shape
    ]
    lines += [f"{name}: missing in the aligned checkpoint" for name in base.names - twins.keys()]
    lines += [
        f"{name}: missing in the base" for name in aligned.names if name not in twins.values()
    ]
    floats = [
        name
        for name in twins
        if base.tensor(name).dtype in FLOATS and aligned.tensor(twins[name]).dtype in FLOATS
    ]
    lines += [
        f"{name}: {base.tensor(name).dtype} and {aligned.tensor(twins[name]).dtype} that differ"
        for name in twins.keys() - set(floats)
        if not same_bits(base.tensor(name), aligned.tensor(twins[name]))
    ]
    if lines:
        raise MergeError(
            f"{base.folder.name} and {aligned.folder.name} are not of one architecture",
            found=listed(sorted(lines)),
            expected="the same tensors of the same shapes",
            do="take two checkpoints of one model",
        )
    _check_same_kind(base, aligned, strict=strict)
    return {name: Difference(aligned.tensor(twins[name]), base.tensor(name)) for name in floats}


def _check_same_kind(base: Checkpoint, aligned: Checkpoint, *, strict: bool) -> None:
    lines = config_differences(_text_config(base), _text_config(aligned))
    lines += text_differences(*(text_marks(tokenizer_in(c.folder)) for c in (base, aligned)))
    refuse_or_warn(base.folder.name, aligned.folder.name, lines, MergeError, strict=strict)


def _text_config(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Return the text configuration, with the defaults of its class where the class is known."""
    from transformers import CONFIG_MAPPING

    kind = checkpoint.config.get("model_type")
    if kind not in CONFIG_MAPPING:
        return checkpoint.config
    config = CONFIG_MAPPING[kind].from_dict(dict(checkpoint.config))
    found: dict[str, Any] = config.get_text_config().to_dict()
    return found


def _twins(base: Checkpoint, aligned: Checkpoint) -> Mapping[str, str]:
    """Return, for each tensor of the base, the name of the aligned tensor of the same parameter."""
    if set(base.names) == set(aligned.names):
        return {name: name for name in base.names}
    left, right = layout_of(base), layout_of(aligned)
    tied = aliases_of(left.model)
    found: dict[str, str] = {}
    for name, stored in left.sources.items():
        for own in (name, tied.get(name, name)):
            if own in right.sources and len(stored) == len(right.sources[own]):
                found.update(zip(stored, right.sources[own], strict=True))
                break
    return found
