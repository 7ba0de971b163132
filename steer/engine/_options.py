"""What the options of `generate` say, and where an answer ends."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from steer._check import as_integer
from steer.algebra._keywords import meant
from steer.errors import TextError

_UNUSED = "`model_kwargs` are not used by the model"  # what transformers says of such options


def setting(named: Mapping[str, Any], default: Any, name: str) -> Any:
    """Return a setting of `generate`: an argument, else the config given, else the model's."""
    if name in named:
        return named[name]
    given = getattr(named.get("generation_config"), name, None)
    return getattr(default, name, None) if given is None else given


def end_tokens(named: Mapping[str, Any], default: Any) -> list[int]:
    """Return the ids that end an answer."""
    ends = setting(named, default, "eos_token_id")
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


def new_tokens(named: Mapping[str, Any], default: Any, width: int) -> int:
    """Return how many tokens an answer may have."""
    names = ("max_new_tokens", "max_length")
    new, total = (setting(named, default, name) for name in names)
    for name, value in zip(names, (new, total), strict=True):
        if value is not None and as_integer(value) is None:
            raise TextError(
                f"{name} is no number of tokens",
                found=f"{name}={value!r}"[:200],
                expected="a whole number",
                do="pass for instance 64",
            )
    if new is None and total is not None:
        new = total - width
    return max(new or 0, 0)


def with_padding(named: Mapping[str, Any], ends: Sequence[int]) -> dict[str, Any]:
    """Return options that name a padding token; in a generation config's copy, if one is given."""
    pad, config = ends[0] if ends else 0, copy.deepcopy(named.get("generation_config"))
    if config is None:
        return {"pad_token_id": pad, **named}
    if config.pad_token_id is None:
        config.pad_token_id = pad
    return {**named, "generation_config": config}


def answer_of(row: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Return generated tokens up to the first that ends an answer, and without it."""
    return list(row[: next((k for k, token in enumerate(row) if token in ends), len(row))])


@contextmanager
def known_options(named: Mapping[str, Any]) -> Iterator[None]:
    """Say which options of a call of `generate` nothing takes, and what was probably meant."""
    try:
        yield
    except ValueError as error:
        unknown = [name for name in named if repr(name) in str(error)]
        if _UNUSED not in str(error) or not unknown:
            raise
        from transformers import GenerationConfig

        raise TextError(
            "generate takes no such option",
            found=", ".join(f"{name}={named[name]!r}"[:60] for name in unknown[:4]),
            expected="batch_size, and the options of Hugging Face's generate",
            do=meant(unknown[0], [*GenerationConfig().to_dict(), "batch_size"]) or "leave it out",
        ) from error
