"""The steps between final norm and logits, apart from the unembedding itself.

The tables list what families declare. Verification compares logits with the model's own, and tries
other fields of the configuration if a line does not hold.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from torch import Tensor, nn

Kind = Literal["multiply", "divide", "cap", "first"]

# config field -> what the model does with it to the logits, in this order
_RULES: Mapping[str, Kind] = {
    "logit_scale": "multiply",  # cohere, cohere2
    "lm_head_multiplier": "multiply",  # falcon_h1
    "logits_scaling": "divide",  # granite, granitemoe, minicpm3
    "final_logit_softcapping": "cap",  # gemma2 to gemma4, nanochat, vaultgemma
    "logits_soft_cap": "cap",  # recurrent_gemma
    "output_logit_soft_cap": "cap",  # xlstm
    "logits_mup_width_multiplier": "divide",  # inkling
    "unpadded_vocab_size": "first",  # inkling, inkling2
}

# fields that may hold one more
_OF_LOGITS = re.compile("logit|lm_head|mup|(output|head).*(scal|mult)")

# (model type, config field) -> the exceptions; None where the field exists and is not used
_EXCEPTIONS: Mapping[tuple[str, str], Kind | None] = {
    ("hyperclovax", "logits_scaling"): "multiply",
    ("mpt", "logit_scale"): None,
}

# model type -> a module between final norm and unembedding: its owner and its name there
_PROJECTIONS: Mapping[str, tuple[Literal["body", "model"], str]] = {
    "opt": ("body", "project_out"),  # opt-350m: embeddings narrower than the residual stream
    "modernbert-decoder": ("model", "lm_head"),
}


@dataclass(frozen=True)
class LogitRule:
    """A function of the logits: value · x, x / value, value · tanh(x / value), or x[:value]."""

    field: str
    kind: Kind
    value: float

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the logits after this rule, in the same order of operations as the model."""
        match self.kind:
            case "multiply":
                return logits * self.value
            case "divide":
                return logits / self.value
            case "cap":
                return (logits / self.value).tanh() * self.value
            case "first":
                return logits[..., : int(self.value)]

    def __str__(self) -> str:
        return f"{self.kind} {self.value:g} ({self.field})"


def logit_rules(config: Any) -> tuple[LogitRule, ...]:
    """Return the rules that a text configuration declares."""
    rules = []
    for field, usual in _RULES.items():
        kind = _EXCEPTIONS.get((config.model_type, field), usual)
        if kind is not None:
            rules += _rule(field, kind, getattr(config, field, None))
    return tuple(rules)


def other_rules(
    config: Any, text_config: Any, declared: Sequence[LogitRule]
) -> Iterator[tuple[LogitRule, ...]]:
    """Yield other rules than those declared, the fewest changes first.

    Declared rules are left out first, as some multimodal heads do not apply those of the text
    model; then one more is tried, from a field whose name mentions logits.
    """
    for size in reversed(range(len(declared))):
        yield from combinations(declared, size)
    known = {rule.field for rule in declared}
    for field, value in {**config.to_dict(), **text_config.to_dict()}.items():
        if field in known or not _OF_LOGITS.search(field):
            continue
        kinds: tuple[Kind, ...] = ("cap",) if "cap" in field else ("multiply", "divide")
        for kind in kinds:
            for rule in _rule(field, kind, value):
                yield (*declared, rule)
                yield (rule,)


def _rule(field: str, kind: Kind, value: Any) -> list[LogitRule]:
    """Return the rule of a field, or none if its value is not a number that changes logits."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value == 0:
        return []
    return [LogitRule(field, kind, float(value))] if value != 1 or kind == "cap" else []


def projection_of(config: Any, model: nn.Module, body: nn.Module) -> nn.Module | None:
    """Return the module between final norm and unembedding, in the families that have one."""
    owner, name = _PROJECTIONS.get(config.model_type, ("model", ""))
    module = getattr(body if owner == "body" else model, name, None)
    return module if isinstance(module, nn.Module) else None
