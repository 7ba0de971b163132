"""The positions of a model: how many there are, and whether they depend on the batch."""

from collections.abc import Mapping
from typing import Any

from steer.network._architecture.architecture import Architecture

_BY_LENGTH = frozenset({"dynamic", "longrope"})


def scaled_by_length(architecture: Architecture, longest: int) -> bool:
    """Return whether the positions of a sequence depend on the longest one beside it."""
    fallback = config_value(architecture, "max_position_embeddings") or 0
    return any(
        rope.get("rope_type") in _BY_LENGTH
        and longest > (rope.get("original_max_position_embeddings") or fallback)
        for rope in _ropes(architecture)
    )


def position_limit(architecture: Architecture) -> int | None:
    """Return the number of positions of a model; None if there is no known limit."""
    limit: int | None = config_value(architecture, "max_position_embeddings")
    grows = any(rope.get("rope_type") == "dynamic" for rope in _ropes(architecture))
    return None if grows else limit


def rotary(architecture: Architecture) -> bool:
    """Return whether positions are rotations, so that texts beyond the limit still run."""
    return any(_ropes(architecture))


def _ropes(architecture: Architecture) -> list[Mapping[str, Any]]:
    """Return the settings of rotary positions: one, or one for each kind of layer."""
    rope = config_value(architecture, "rope_parameters") or {}
    return [rope, *(group for group in rope.values() if isinstance(group, dict))]


def config_value(architecture: Architecture, name: str) -> Any:
    """Return an entry of the text model's configuration; None without one."""
    return getattr(getattr(architecture.body, "config", None), name, None)
