"""The card of a model: its parts, dtypes, devices and engine."""

from collections import Counter
from typing import TYPE_CHECKING

from steer.algebra import ModelInfo
from steer.network._fingerprint import name_of
from steer.show import Card

if TYPE_CHECKING:
    from steer.model._model import Model


def model_card(lm: "Model", info: ModelInfo | None) -> Card:
    """Return the card of a model, with its fingerprints if they are known."""
    parts, model = lm.architecture._card(), lm.architecture.model
    parameters = list(model.parameters())
    dtypes = Counter(str(p.dtype).removeprefix("torch.") for p in parameters)
    devices = Counter(str(p.device) for p in parameters)
    count = sum(p.numel() for p in parameters)
    held = f"{count:,} parameters, {_listed(dtypes)} on {_listed(devices)}"
    facts = [("path", name_of(model)), ("found", parts.title)]
    facts += [("held", held), ("engine", lm.engine.name)]
    if model.training:
        facts.append(("mode", "training: call eval() before it is steered or recorded"))
    if info is not None:
        marks = {"config": info.config, "tokenizer": info.tokenizer, "template": info.template}
        facts.append(("SHA-256", ", ".join(f"{k} {mark[:8]}…" for k, mark in marks.items())))
    return Card(repr(lm), tuple(facts), parts.blocks)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(name for name, _ in counts.most_common(4)) or "–"
