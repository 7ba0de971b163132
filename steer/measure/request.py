"""What identifies a sweep, so that a saved one is only ever resumed with the same request."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from steer.composition import Composition
from steer.errors import SelectionError
from steer.fingerprint import weights_sample
from steer.measure.grid import Setting
from steer.measure.identity import parts_of
from steer.measure.measures import Answers, Measure
from steer.model import Model
from steer.pairs import Pairs, Prompt
from steer.store.describe import values_checksum
from steer.store.strict_json import dumps
from steer.term import tensors


def fingerprint(
    model: Model,
    composition: Composition,
    settings: Sequence[Setting],
    data: Mapping[str, Pairs | Answers],
    measure: Measure,
    reduce: str,
) -> str:
    """Return the SHA-256 of everything that a sweep's numbers depend on.

    Of a model these are its configuration, tokenizer, template, the name it was loaded by and some
    of its weights (`weights_sample`); of a function its name, code and values (`parts_of`).

    Args:
        model: The model.
        composition: What is swept; its coefficients do not count.
        settings: Every setting.
        data: The data of each domain.
        measure: What is measured.
        reduce: How scores are made of tokens.
    """
    request = {
        "model": asdict(model.info),
        "dtype": str(next(model.architecture.model.parameters()).dtype),
        "weights": weights_sample(model.hf_model),
        "composition": _composition(composition),
        "settings": [[s.layer, s.scope, list(s.coefficients)] for s in settings],
        "data": [[name, _data(part)] for name, part in data.items()],
        "measure": measure_identity(measure),
        "reduce": reduce,
    }
    return hashlib.sha256(dumps(request).encode()).hexdigest()


def measure_name(measure: Measure) -> str:
    """Return a measure's name: for a function, where it is defined."""
    if isinstance(measure, str):
        return measure
    name = getattr(measure, "__qualname__", type(measure).__qualname__)
    return f"{getattr(measure, '__module__', '')}.{name}"


def measure_identity(measure: Measure) -> Any:
    """Return what tells a measure from others: its name, and of a function its parts as well.

    Args:
        measure: The measure.

    Raises:
        SelectionError: Its values are nested too deeply.
    """
    name = measure_name(measure)
    parts = {} if isinstance(measure, str) else parts_of(measure)
    return [name, parts] if parts else name


def is_named(measure: Measure) -> bool:
    """Return whether a measure's name is its own, as that of a lambda or a partial is not.

    Args:
        measure: The measure.
    """
    return not isinstance(measure, partial) and "<" not in measure_name(measure)


def check_named(measure: Measure) -> None:
    """Refuse to save what a measure without a name of its own gives: another could take it up.

    Args:
        measure: The measure.

    Raises:
        SelectionError: It is a lambda, a partial, or stands inside a function.
    """
    if not is_named(measure):
        raise SelectionError(
            "what this measure gives cannot be saved: its name does not tell it from others",
            found=measure_name(measure),
            expected="a function that is defined at the top of a module",
            do="give it a name, def my_measure(model, data): …, or leave save out",
        )


def _composition(composition: Composition) -> dict[str, Any]:
    gate = composition.gate
    gated = None
    if gate is not None:
        gated = [list(gate.domains), values_checksum(gate.centroids), gate.layer, gate.margin]
    parts = {}
    for name, part in composition.parts.items():
        terms = {
            str(site): {k: values_checksum(t) for k, t in tensors(term).items()}
            for site, term in part.vector.terms.items()
        }
        parts[name] = [part.operator, str(part.scope), terms]
    return {"domains": list(composition.domains), "parts": parts, "gate": gated}


def _data(part: Pairs | Answers) -> Any:
    if isinstance(part, Pairs):
        return part.fingerprint
    prompts = [_prompt(prompt) for prompt in part.prompts]
    return [prompts, [[level, list(texts)] for level, texts in part.answers.items()]]


def _prompt(prompt: Prompt) -> Any:
    if isinstance(prompt, str):
        return prompt
    return [[m.role, m.content, *([dict(m.fields)] if m.fields else [])] for m in prompt]
