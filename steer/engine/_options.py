"""The options of `generate`: their values in a call, refusals, and the end of an answer."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from steer._check import as_integer
from steer.algebra import Composition
from steer.algebra._keywords import meant
from steer.engine._steps import placed
from steer.errors import CapabilityError, TextError

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
    """Return how many tokens an answer may have after prompts of at most `width` tokens."""
    names = ("max_new_tokens", "max_length")
    new, total = (setting(named, default, name) for name in names)
    for name, value in zip(names, (new, total), strict=True):
        if value is not None and as_integer(value) is None:
            raise TextError(
                f"{name} must be an integer",
                found=f"{name}={value!r}"[:200],
                expected="a number of tokens",
                do="pass for instance 64",
            )
    if new is None and total is not None:
        new = total - width
    return max(new or 0, 0)


def with_padding(named: Mapping[str, Any], ends: Sequence[int]) -> dict[str, Any]:
    """Return options with a padding token, in a copy of the generation config if one is given."""
    pad, config = ends[0] if ends else 0, copy.deepcopy(named.get("generation_config"))
    if config is None:
        return {"pad_token_id": pad, **named}
    if config.pad_token_id is None:
        config.pad_token_id = pad
    return {**named, "generation_config": config}


def answer_of(row: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Return generated tokens up to, and without, the first that ends an answer."""
    return list(row[: next((k for k, token in enumerate(row) if token in ends), len(row))])


def answers_of(out: Any, width: int, ends: Sequence[int]) -> list[list[int]]:
    """Return the answers in what `generate` returned for prompts of some columns."""
    sequences = out if isinstance(out, Tensor) else out.sequences
    return [answer_of(row, ends) for row in sequences[:, width:].tolist()]


@contextmanager
def known_options(named: Mapping[str, Any]) -> Iterator[None]:
    """Name the options that `generate` does not take, with the closest known one."""
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


def refuse_options(
    compositions: Iterable[Composition], setting_of: Callable[[str], object]
) -> None:
    """Refuse options with which gates or positions are not those of the prompts."""
    stack = list(compositions)
    gated = any(composition.gate is not None for composition in stack)
    if gated and (early := setting_of("assistant_early_exit")) is not None:
        raise CapabilityError(
            "a gate cannot read the prompt again when the model drafts for itself",
            found=f"assistant_early_exit={early}",
            expected="another model as assistant, prompt lookup, or no assistance",
            do="leave out assistant_early_exit, or take the gate away",
        )
    if any(map(placed, stack)) and (guidance := setting_of("guidance_scale")) not in (None, 1, 1.0):
        raise CapabilityError(
            "classifier-free guidance runs a second text whose prompt is another",
            found=f"guidance_scale={guidance!r}",
            expected="no guidance, or the scope 'all'",
            do="leave out guidance_scale, or steer with the scope 'all'",
        )
