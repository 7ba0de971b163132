"""What the options of `generate` say, and where an answer ends."""

from collections.abc import Mapping, Sequence
from typing import Any


def setting(named: Mapping[str, Any], default: Any, name: str) -> Any:
    """Return a setting of `generate`: an argument, else the config given, else the model's.

    Args:
        named: Arguments of `generate` by name.
        default: The model's own generation config.
        name: The setting.
    """
    if name in named:
        return named[name]
    given = getattr(named.get("generation_config"), name, None)
    return getattr(default, name, None) if given is None else given


def end_tokens(named: Mapping[str, Any], default: Any) -> list[int]:
    """Return the ids that end an answer.

    Args:
        named: See `setting`.
        default: See `setting`.
    """
    ends = setting(named, default, "eos_token_id")
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


def answer_of(row: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Return generated tokens up to the first that ends an answer, and without it.

    Args:
        row: Token ids.
        ends: Ids that end an answer.
    """
    return list(row[: next((k for k, token in enumerate(row) if token in ends), len(row))])
