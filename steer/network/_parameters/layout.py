"""How the tensors of a checkpoint make up the parameters of its model.

A checkpoint may name and cut its tensors otherwise than the model does: without the prefix of the
base model, one matrix for each expert where the model holds one block for all, tied weights under
either name. `transformers` has the rules; here they are applied without loading the model.
"""

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from steer.errors import CheckpointError
from steer.network._checkpoint import Checkpoint

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # numbers without scales
_RECOMPUTED = re.compile(r"rotary_emb\.inv_freq$")  # in old checkpoints, computed since
_SHOWN = 10


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """How the tensors of a checkpoint make up the parameters of its model.

    Args:
        model: The skeleton of the model, on the meta device, tied as in the checkpoint.
        sources: Names of the tensors that each parameter or buffer is made of, in order.
        converters: What makes a parameter of them, where it is not the tensor itself.
        left_out: Tensors that are no parameter: position and mask buffers, integers, and what
            `transformers` itself ignores.
    """

    model: nn.Module
    sources: Mapping[str, tuple[str, ...]]
    converters: Mapping[str, Any]
    left_out: tuple[str, ...]

    def read(self, checkpoint: Checkpoint, name: str) -> Tensor:
        """Return a parameter: a view of the mapped file, or made of several such views.

        Args:
            checkpoint: The checkpoint.
            name: The parameter's name in the model.
        """
        if name not in self.converters:
            return checkpoint.tensor(self.sources[name][0])
        return _converted(self.converters[name], checkpoint.tensor, self.model)[name]


def skeleton(checkpoint: Checkpoint) -> nn.Module:
    """Return a checkpoint's model on the meta device: all of it but the numbers."""
    import transformers

    if checkpoint.config.get("quantization_config"):
        raise _wrong(checkpoint, "quantised weights", "float weights", "load the model it was from")
    try:
        config = transformers.AutoConfig.from_pretrained(checkpoint.folder)
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            if type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
                model: nn.Module = transformers.AutoModelForCausalLM.from_config(config)
            else:
                model = getattr(transformers, (config.architectures or [""])[0])(config)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise _wrong(
            checkpoint,
            f"no class for it: {error}",
            "a model of transformers itself",
            "load the model, and pass it in place of the folder",
        ) from error
    return model


def layout_of(checkpoint: Checkpoint) -> Layout:
    """Return how the tensors of a checkpoint make up its model's parameters.

    Args:
        checkpoint: The checkpoint.

    Raises:
        CheckpointError: As `parameters_in`.
    """
    model = skeleton(checkpoint)
    sources, converters, unknown = _assigned(checkpoint, model)
    _untie(checkpoint, model, sources)
    aliases = aliases_of(model)
    for alias, name in aliases.items():
        if name not in sources and alias in sources:
            sources[name] = sources[alias]
    needed = dict(model.named_parameters())
    missing = [name for name in needed if name not in sources]
    ignored = [re.compile(pattern) for pattern in _ignored(model)]
    computed = {name for name, _ in model.named_buffers()}
    foreign = [
        name
        for name in unknown
        if not any(pattern.search(name) for pattern in (*ignored, _RECOMPUTED))
        and name not in computed
        and checkpoint.dtype(name).is_floating_point
    ]
    shapes = {n: checkpoint.shape(s[0]) for n, s in sources.items() if n not in converters}
    unfit = [
        f"{name}: {shapes[name]}, by the configuration {tuple(parameter.shape)}"
        for name, parameter in needed.items()
        if name in shapes and shapes[name] != tuple(parameter.shape)
    ]
    no_float = [n for n in needed if n in sources and not _float(checkpoint, sources[n])]
    _refuse(checkpoint, missing, foreign, unfit, no_float)
    left_out = tuple(name for name in unknown if name not in foreign)
    frozen = MappingProxyType({name: tuple(s) for name, s in sources.items()})
    return Layout(model, frozen, MappingProxyType(converters), left_out)


def _assigned(
    checkpoint: Checkpoint, model: nn.Module
) -> tuple[dict[str, list[str]], dict[str, Any], list[str]]:
    """Return the tensors of each parameter, the converters, and the tensors that fit nowhere."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    transforms: Any = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    known = [t for t in transforms if isinstance(t, WeightConverter)]
    by_pattern = {pattern: t for t in known for pattern in t.source_patterns}
    state = model.state_dict()
    prefix = getattr(model, "base_model_prefix", None)
    plain: dict[str, list[str]] = {}
    groups: dict[str, tuple[Any, list[tuple[str, str]]]] = {}
    unknown, twice = [], []
    for name in sorted(checkpoint.names, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, known, prefix, state)
        if target not in state and name in state:
            target, pattern = name, None
        if target not in state:
            unknown.append(name)
        elif pattern is None:
            if target in plain:
                twice.append(f"{target}: both {plain[target][0]} and {name}")
            plain[target] = [name]
        else:
            groups.setdefault(target, (by_pattern[pattern], []))[1].append((pattern, name))
    converters = _checked(checkpoint, model, groups)
    for made, (_, _, parts) in converters.items():
        if made in plain:
            twice.append(f"{made}: both {plain[made][0]} and {parts[0][1]} …")
        plain[made] = [name for _, name in parts]
    if twice:
        raise _wrong(
            checkpoint,
            listed(twice),
            "one source for each parameter",
            "remove one of them, or load the model and write it again with save_pretrained",
        )
    return plain, converters, unknown


def _checked(
    checkpoint: Checkpoint, model: nn.Module, groups: Mapping[str, tuple[Any, list[Any]]]
) -> dict[str, Any]:
    """Return what makes each converted parameter, after trying it on tensors without numbers."""
    state = model.state_dict()
    converters: dict[str, Any] = {}
    for target, (transform, parts) in groups.items():
        recipe = (target, transform, tuple(parts))
        for made, value in _converted(recipe, _empty(checkpoint), model).items():
            if tuple(value.shape) != tuple(state[made].shape):
                found = f"{made} of shape {tuple(value.shape)} from {parts[0][1]} …"
                expected = f"shape {tuple(state[made].shape)}"
                raise _wrong(checkpoint, found, expected, "fetch the checkpoint again")
            converters[made] = recipe
    return converters


def _ignored(model: Any) -> list[str]:
    return list(model._keys_to_ignore_on_load_unexpected or ())


def _empty(checkpoint: Checkpoint) -> Callable[[str], Tensor]:
    return lambda name: torch.empty(
        checkpoint.shape(name), dtype=checkpoint.dtype(name), device="meta"
    )


def _converted(recipe: Any, read: Callable[[str], Tensor], model: Any) -> dict[str, Tensor]:
    """Return the parameters that one converter makes of tensors, by their names in the model."""
    target, transform, parts = recipe
    converter = copy.deepcopy(transform)
    for pattern, name in parts:
        converter.add_tensor(target, name, pattern, lambda name=name: read(name))
    made = converter.convert(target, model=model, config=model.config)
    return {name: t[0] if isinstance(t, list) else t for name, t in made.items()}


def _untie(checkpoint: Checkpoint, model: nn.Module, sources: Mapping[str, list[str]]) -> None:
    """Untie what the checkpoint holds twice with different values, as `transformers` does."""
    for alias, name in aliases_of(model).items():
        both = alias in sources and name in sources
        if both and not torch.equal(
            checkpoint.tensor(sources[alias][0]), checkpoint.tensor(sources[name][0])
        ):
            owner, _, leaf = alias.rpartition(".")
            value = model.get_parameter(name)
            setattr(model.get_submodule(owner), leaf, nn.Parameter(torch.empty_like(value)))


def _float(checkpoint: Checkpoint, names: list[str]) -> bool:
    return all(checkpoint.dtype(name) in FLOATS for name in names)


def aliases_of(model: nn.Module) -> dict[str, str]:
    """Return the other names of tied parameters, each with its name in `named_parameters()`."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    return {name: first[id(p)] for name, p in every if first[id(p)] != name}


def _refuse(
    checkpoint: Checkpoint,
    missing: list[str],
    foreign: list[str],
    unfit: list[str],
    no_float: list[str],
) -> None:
    lines = [f"{name}: missing" for name in missing]
    lines += [f"{name}: no parameter of the model" for name in foreign]
    lines += unfit
    lines += [f"{name}: quantised, not float16 to float64" for name in no_float]
    if lines:
        raise _wrong(
            checkpoint,
            listed(lines),
            "the parameters that config.json asks for",
            "fetch or write the checkpoint again, or pass the loaded model",
        )


def listed(lines: list[str]) -> str:
    """Return the first ten lines, and how many there are."""
    more = [f"… {len(lines)} in all"] if len(lines) > _SHOWN else []
    return "\n            ".join([*lines[:_SHOWN], *more])


def _wrong(checkpoint: Checkpoint, found: str, expected: str, do: str) -> CheckpointError:
    what = f"{checkpoint.folder}: the weights are not those of a model that can be read"
    return CheckpointError(what, found=found, expected=expected, do=do)
