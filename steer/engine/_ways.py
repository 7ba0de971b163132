"""Ways to generate that a composition which must know the call does not go with."""

from collections.abc import Callable, Sequence

from steer.engine._steering import Steering
from steer.errors import CapabilityError


def refuse_ways(stack: Sequence[Steering], setting_of: Callable[[str], object]) -> None:
    """Refuse ways to generate in which gates or positions are not those of the prompts."""
    gated = any(steering.composition.gate is not None for steering in stack)
    if gated and setting_of("assistant_early_exit") is not None:
        raise CapabilityError(
            "a gate cannot read the prompt again when the model drafts for itself",
            found=f"assistant_early_exit={setting_of('assistant_early_exit')}",
            expected="another model as assistant, prompt lookup, or no assistance",
            do="leave out assistant_early_exit, or take the gate away",
        )
    parts = [part for s in stack for part in s.composition.parts.values()]
    placed = any(not part.scope.everything for part in parts)
    if placed and setting_of("guidance_scale") not in (None, 1, 1.0):
        raise CapabilityError(
            "classifier-free guidance runs a second text whose prompt is another",
            found=f"guidance_scale={setting_of('guidance_scale')!r}",
            expected="no guidance, or the scope 'all'",
            do="leave out guidance_scale, or steer with the scope 'all'",
        )


def refuse_continuous_batching(*_: object, **__: object) -> None:
    """Refuse to mix prompts in one row."""
    raise CapabilityError(
        "continuous batching mixes prompts in one row",
        found="generate_batch, or cache_implementation='paged'",
        expected="one row per prompt",
        do="use generate() with another cache, or scope 'all' with one setting for all prompts",
    )
