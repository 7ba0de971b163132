"""What happens between the final norm and the logits, apart from the unembedding itself.

A new model family with a special case is one line in one of the three tables below. Whether a
line is right is decided by the check at load, which compares logits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Kind = Literal["multiply", "divide", "cap"]

# config field -> what the model does with it to the logits, in this order
_RULES: Mapping[str, Kind] = {
    "logit_scale": "multiply",  # cohere, cohere2
    "lm_head_multiplier": "multiply",  # falcon_h1
    "logits_scaling": "divide",  # granite, granitemoe, minicpm3
    "final_logit_softcapping": "cap",  # gemma2 to gemma4, nanochat, vaultgemma
    "logits_soft_cap": "cap",  # recurrent_gemma
    "output_logit_soft_cap": "cap",  # xlstm
}

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
    """One function of the logits that the model's config asks for.

    ``multiply``: value · x; ``divide``: x / value; ``cap``: value · tanh(x / value).

    Args:
        field: The config field it comes from.
        kind: Which function.
        value: Its constant, dimensionless.
    """

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

    def __str__(self) -> str:
        return f"{self.kind} {self.value:g} ({self.field})"


def logit_rules(config: Any) -> tuple[LogitRule, ...]:
    """Return the rules that a text config asks for.

    Args:
        config: The text config of a model.
    """
    rules = []
    for field, usual in _RULES.items():
        value = getattr(config, field, None)
        kind = _EXCEPTIONS.get((config.model_type, field), usual)
        neutral = kind != "cap" and value == 1
        if isinstance(value, int | float) and kind is not None and not neutral:
            rules.append(LogitRule(field, kind, float(value)))
    return tuple(rules)


def projection_place(config: Any) -> tuple[Literal["body", "model"], str] | None:
    """Return owner and name of the module between final norm and unembedding, if there is one.

    Args:
        config: The text config of a model.
    """
    return _PROJECTIONS.get(config.model_type)
