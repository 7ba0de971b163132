"""Cards of a model and of its architecture: the parts that were found, and their names."""

from collections import Counter

from steer.algebra import ModelInfo
from steer.network._architecture.architecture import Architecture
from steer.network._architecture.tree import classes
from steer.show import Card, Table

_RULES = 8


def architecture_card(architecture: Architecture) -> Card:
    """Return the card of an architecture."""
    return Card(_size(architecture), (), (_parts(architecture),))


def model_card(title: str, architecture: Architecture, engine: str, info: ModelInfo | None) -> Card:
    """Return the card of a model: its parts, dtypes, devices and engine."""
    parameters = list(architecture.model.parameters())
    dtypes = Counter(str(p.dtype).removeprefix("torch.") for p in parameters)
    devices = Counter(str(p.device) for p in parameters)
    count = sum(p.numel() for p in parameters)
    held = f"{count:,} parameters, {_listed(dtypes)} on {_listed(devices)}"
    facts = [("path", name_of(architecture)), ("found", _size(architecture))]
    facts += [("held", held), ("engine", engine)]
    if architecture.model.training:
        facts.append(("mode", "training: call eval() before it is steered or recorded"))
    if info is not None:
        marks = {"config": info.config, "tokenizer": info.tokenizer, "template": info.template}
        facts.append(("SHA-256", ", ".join(f"{k} {mark[:8]}…" for k, mark in marks.items())))
    return Card(title, tuple(facts), (_parts(architecture),))


def model_line(kind: str, architecture: Architecture, engine: str) -> str:
    """Return a model in one line."""
    size = f"{architecture.n_layers} layers × {architecture.d_model}"
    return f"{kind}({name_of(architecture)!r}, {size}, engine {engine})"


def name_of(architecture: Architecture) -> str:
    """Return the name or path that a model was loaded from, else the name of its class."""
    config = getattr(architecture.model, "config", None)
    return getattr(config, "_name_or_path", "") or type(architecture.model).__name__


def _size(architecture: Architecture) -> str:
    size = f"{architecture.n_layers} layers × {architecture.d_model}"
    return f"{type(architecture.model).__name__}: {size}, vocabulary {architecture.vocab:,}"


def _parts(architecture: Architecture) -> Table:
    kinds = {"blocks": f"{architecture.n_layers} × {classes(architecture.blocks)}"}
    rows = [
        (part, name or ".", kinds.get(part) or type(getattr(architecture, part)).__name__)
        for part, name in architecture.names.items()
    ]
    rows += [("logits", str(rule), "") for rule in architecture.logit_rules[:_RULES]]
    return Table(("part", "at", "what"), tuple(rows), words=3)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(name for name, _ in counts.most_common(4)) or "–"
