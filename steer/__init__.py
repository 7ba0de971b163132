"""A language model's behaviour as a set of knobs.

From preference pairs to steered text::

    import steer

    lm = steer.Model.from_pretrained("…")
    activations = steer.record(lm, steer.Pairs.load("pairs.jsonl"))
    vector = steer.palrs(activations)
    with lm.steered(vector, 0.8):
        print(lm.generate("…"))
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from steer import _units, errors

if TYPE_CHECKING:
    from steer.algebra import (
        Composition,
        Dense,
        Direction,
        DomainGate,
        LowRank,
        Part,
        Residual,
        Scope,
        Vector,
        Weight,
        compose,
    )
    from steer.alignment import (
        alignment_vector,
        bidirectional,
        dare,
        in_domain,
        low_rank,
        magnitude,
        preference_tune,
        ties,
        write_alignment_vector,
    )
    from steer.extract import (
        Activations,
        domain_gate,
        mean_difference,
        packing_report,
        palrs,
        preference_gradient,
        record,
        routing_accuracy,
    )
    from steer.measure import (
        Answers,
        Sweep,
        kl_divergence,
        level_preference,
        neutral_text,
        preference,
        sweep,
    )
    from steer.merge import merge_checkpoint
    from steer.model import Model
    from steer.pairs import Message, Pair, Pairs
    from steer.selection import Limits, Selection, calibrate, compare_at_kl, select

__version__ = "0.1.0"

__all__ = [
    "Activations",
    "Answers",
    "Composition",
    "Dense",
    "Direction",
    "DomainGate",
    "Limits",
    "LowRank",
    "Message",
    "Model",
    "Pair",
    "Pairs",
    "Part",
    "Residual",
    "Scope",
    "Selection",
    "Sweep",
    "Vector",
    "Weight",
    "alignment_vector",
    "bidirectional",
    "calibrate",
    "compare_at_kl",
    "compose",
    "dare",
    "domain_gate",
    "errors",
    "in_domain",
    "kl_divergence",
    "level_preference",
    "low_rank",
    "magnitude",
    "mean_difference",
    "merge_checkpoint",
    "neutral_text",
    "packing_report",
    "palrs",
    "preference",
    "preference_gradient",
    "preference_tune",
    "record",
    "routing_accuracy",
    "select",
    "sweep",
    "ties",
    "write_alignment_vector",
]

_NAMES = {
    "algebra": (
        "Composition",
        "Dense",
        "Direction",
        "DomainGate",
        "LowRank",
        "Part",
        "Residual",
        "Scope",
        "Vector",
        "Weight",
        "compose",
    ),
    "alignment": (
        "alignment_vector",
        "bidirectional",
        "dare",
        "in_domain",
        "low_rank",
        "magnitude",
        "preference_tune",
        "ties",
        "write_alignment_vector",
    ),
    "extract": (
        "Activations",
        "domain_gate",
        "mean_difference",
        "packing_report",
        "palrs",
        "preference_gradient",
        "record",
        "routing_accuracy",
    ),
    "measure": (
        "Answers",
        "Sweep",
        "kl_divergence",
        "level_preference",
        "neutral_text",
        "preference",
        "sweep",
    ),
    "merge": ("merge_checkpoint",),
    "model": ("Model",),
    "pairs": ("Message", "Pair", "Pairs"),
    "selection": ("Limits", "Selection", "calibrate", "compare_at_kl", "select"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
_MODULES = {
    *_NAMES,
    "console",
    "demo",
    "exchange",
    "harness",
    "report",
    "tracing",
    "view",
}


def _relative(model: Any, composition: "Composition", value: float) -> "Composition":
    from steer.selection._strength import at_displacement

    return at_displacement(model, composition, value)


def _kl(model: Any, composition: "Composition", value: float) -> "Composition":
    from steer.selection._strength import at_kl

    return at_kl(model, composition, value)


_units.register_unit(
    "relative", _relative
)  # `Model.steered` takes these units; `selection` knows them
_units.register_unit("kl", _kl)


if not TYPE_CHECKING:  # a type checker reads the imports above

    def __getattr__(name: str) -> object:
        """Return a public name or a room, loaded when it is first named (PEP 562)."""
        if name in _HOMES:
            value = getattr(import_module(f"steer.{_HOMES[name]}"), name)
        elif name in _MODULES or (not name.startswith("_") and find_spec(f"steer.{name}")):
            value = import_module(f"steer.{name}")
        else:
            raise AttributeError(f"module 'steer' has no attribute {name!r}")
        return globals().setdefault(name, value)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES, *_MODULES})
