"""A language model's behaviour as a set of knobs.

From preference pairs to steered text::

    import steer

    lm = steer.Model.from_pretrained("…")
    activations = steer.record(lm, steer.Pairs.load("pairs.jsonl"), at="template")
    vector = steer.palrs(activations)
    with lm.steered(vector, 0.8):
        print(lm.generate("…"))
"""

from steer import errors
from steer.activations import Activations, packing_report, record
from steer.alignment import (
    alignment_vector,
    bidirectional,
    dare,
    low_rank,
    magnitude,
    ties,
    write_alignment_vector,
)
from steer.choice import Choice
from steer.composition import Composition, Part, compose
from steer.evaluate import kl_per_token, level_preference, neutral_text, preference
from steer.extract import mean_difference, palrs
from steer.gate import DomainGate
from steer.gating import domain_gate, routing_accuracy
from steer.merge import merge_checkpoint
from steer.model import Model
from steer.pairs import Message, Pair, Pairs
from steer.scope import Scope
from steer.search import Limits, Selection, calibrate, compare_at_kl
from steer.select import select
from steer.site import Residual, Weight
from steer.sweep import Answers, Sweep, sweep
from steer.term import Dense, Direction, LowRank
from steer.tune import preference_tune
from steer.vector import Vector

__version__ = "0.1.0"

__all__ = [
    "Activations",
    "Answers",
    "Choice",
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
