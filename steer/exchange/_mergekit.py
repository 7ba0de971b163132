"""mergekit configurations: task arithmetic, base + Σ c (model − base), in YAML.

mergekit takes the differences itself, so that a vector leaves by the names of its two models, and
a file comes in by taking the differences of the models that it names.
"""

from pathlib import Path
from typing import Any

import yaml

from steer.algebra import Composition, LowRank, Vector
from steer.errors import VectorFileError
from steer.exchange._registry import Format, register_format
from steer.store import read_file, write_text

_REDUCED = ("rank", "energy", "include", "forms")
_PLAIN = {"normalize": (False,), "lambda": (1, 1.0), "int8_mask": (False,)}
_IGNORED = ("dtype", "out_dtype", "tokenizer", "tokenizer_source", "chat_template")


def _write(setting: Composition, path: Path) -> None:
    named = [(part.vector, *_models_of(part.vector)) for part in setting.parts.values()]
    if len(bases := {base for _, base, _ in named}) > 1:
        raise FORMAT.refused(
            f"the bases {sorted(bases)}", "one base model", "write a file for each"
        )
    rows: list[float] = setting.coefficients[0].tolist()
    models = [
        {"model": model, "parameters": {"weight": c}}
        for c, (_, _, model) in zip(rows, named, strict=True)
    ]
    document = {"models": models, "base_model": named[0][1], "merge_method": "task_arithmetic"}
    write_text(path, yaml.safe_dump(document, sort_keys=False), VectorFileError)


def _models_of(vector: Vector) -> tuple[str, str]:
    """Return the base and the other model that a vector is the whole difference of."""
    made = vector.provenance
    said = made.arguments
    base, model = str(said.get("base", "")), str(said.get("aligned", ""))
    reduced = [name for name in _REDUCED if said.get(name)]
    nameless = any(not name or name.endswith(", changed in memory") for name in (base, model))
    if made.method != "alignment_vector" or reduced or nameless:
        raise FORMAT.refused(
            f"a vector made by {made.method}{''.join(f', {name}' for name in reduced)}",
            "the whole difference of two models on disk, as steer.alignment_vector returns it",
            "merge it instead: steer.merge_checkpoint",
        )
    adapter = any(isinstance(term, LowRank) for term in vector.terms.values())
    return base, f"{base}+{model}" if adapter else model


def _read(path: Path) -> Vector:
    """Read a configuration by taking the differences that it names; Hub ids are fetched."""
    from steer.alignment import alignment_vector

    data = read_file(path, VectorFileError, most=2**20)
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data)):
            raise ValueError("an alias, which may stand for any number of values")
        document: Any = yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    _check_plain(document)
    base, terms = document["base_model"], list[Vector]()
    for entry in document["models"]:
        parameters = entry.get("parameters") or {}
        if entry["model"] == base and not parameters:
            continue
        if set(parameters) != {"weight"} or type(parameters["weight"]) not in (int, float):
            raise ValueError(f"{entry['model']}: parameters {parameters}, not one weight")
        model = entry["model"].removeprefix(f"{base}+")
        weight = float(parameters["weight"])
        terms.append(weight * alignment_vector(base, model, progress=False))
    if not terms:
        raise ValueError("no model other than the base")
    return sum(terms[1:], start=terms[0])


def _check_plain(document: Any) -> None:
    known = {"merge_method", "base_model", "models", "parameters", *_IGNORED}
    odd = sorted(set(document) - known)
    parameters = document.get("parameters") or {}
    odd += [f"{k}: {v}" for k, v in parameters.items() if v not in _PLAIN.get(k, ())]
    if document["merge_method"] != "task_arithmetic" or odd:
        raise ValueError(f"{document['merge_method']}, {odd}: more than base + Σ c (model − base)")


FORMAT = register_format(
    Format(
        name="mergekit",
        what="mergekit: task arithmetic of whole models",
        suffixes=(".yml", ".yaml"),
        write=_write,
        read=_read,
        terms="models",
    )
)
