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
from typing import TYPE_CHECKING

from steer import errors
from steer.composition import Composition, Part, compose
from steer.gate import DomainGate
from steer.pairs import Message, Pair, Pairs
from steer.scope import Scope
from steer.site import Residual, Weight
from steer.term import Dense, Direction, LowRank
from steer.vector import Vector

if TYPE_CHECKING:
    from steer.activations import Activations
    from steer.alignment.bidirectional import bidirectional
    from steer.alignment.difference import alignment_vector, write_alignment_vector
    from steer.alignment.factors import low_rank
    from steer.alignment.sparse import dare, magnitude, ties
    from steer.evaluate.kl import kl_per_token, neutral_text
    from steer.evaluate.levels import level_preference
    from steer.evaluate.preference import preference
    from steer.extract.mean_difference import mean_difference
    from steer.extract.palrs import palrs
    from steer.gating import domain_gate, routing_accuracy
    from steer.measure import Answers, Sweep, sweep
    from steer.merge import merge_checkpoint
    from steer.model import Model
    from steer.recording import packing_report, record
    from steer.selection import Limits, Selection, calibrate, compare_at_kl, select
    from steer.tune import preference_tune

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
    "kl_per_token",
    "level_preference",
    "low_rank",
    "magnitude",
    "mean_difference",
    "merge_checkpoint",
    "neutral_text",
    "packing_report",
    "palrs",
    "preference",
    "preference_tune",
    "record",
    "routing_accuracy",
    "select",
    "sweep",
    "ties",
    "write_alignment_vector",
]

_NAMES = {
    "activations": ("Activations",),
    "alignment": (
        "alignment_vector",
        "bidirectional",
        "dare",
        "low_rank",
        "magnitude",
        "ties",
        "write_alignment_vector",
    ),
    "evaluate": ("kl_per_token", "level_preference", "neutral_text", "preference"),
    "extract": ("mean_difference", "palrs"),
    "gating": ("domain_gate", "routing_accuracy"),
    "measure": ("Answers", "Sweep", "sweep"),
    "merge": ("merge_checkpoint",),
    "model": ("Model",),
    "recording": ("packing_report", "record"),
    "selection": ("Limits", "Selection", "calibrate", "compare_at_kl", "select"),
    "tune": ("preference_tune",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
_MODULES = {
    *_NAMES,
    "console",
    "demo",
    "harness",
    "report",
    "streaming",
    "text",
    "tracing",
    "view",
}


if not TYPE_CHECKING:  # a type checker reads the imports above

    def __getattr__(name: str) -> object:
        """Return what `import steer` leaves out, loaded when it is first named (PEP 562)."""
        if name in _HOMES:
            value = getattr(import_module(f"steer.{_HOMES[name]}"), name)
        elif name in _MODULES or (not name.startswith("_") and find_spec(f"steer.{name}")):
            value = import_module(f"steer.{name}")
        else:
            raise AttributeError(f"module 'steer' has no attribute {name!r}")
        return globals().setdefault(name, value)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES, *_MODULES})
