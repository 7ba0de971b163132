"""The mapping from the tensors of a checkpoint to the parameters of its model.

A checkpoint may name and split its tensors differently from the model: without the prefix of the
base model, one matrix per expert in place of one block for all, tied weights under either name.
The rules of `transformers` are applied here without loading the model.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from steer.errors import CheckpointError
from steer.network._checkpoint import Checkpoint

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # numbers without scales
_RECOMPUTED = r"rotary_emb\.inv_freq$"  # stored in old checkpoints, computed today
_SHOWN = 10


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """The tensors and converters behind each parameter of a model without values."""

    model: nn.Module
    sources: Mapping[str, tuple[str, ...]]
    converters: Mapping[str, Any]
    left_out: tuple[str, ...]  # masks, positions, integers, and what transformers ignores

    def read(self, checkpoint: Checkpoint, name: str) -> Tensor:
        """Return a parameter: a view of the mapped file, or converted from several views."""
        if name not in self.converters:
            return checkpoint.tensor(self.sources[name][0])
        return _converted(self.converters[name], checkpoint.tensor, self.model)[name]


def skeleton(checkpoint: Checkpoint) -> nn.Module:
    """Return the model of a checkpoint on the meta device, without values."""
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
    except Exception as error:  # configurations raise classes of their own
        raise _wrong(
            checkpoint,
            f"no class for it: {error}",
            "a model of transformers itself",
            "load the model, and pass it in place of the folder",
        ) from error
    return model


def layout_of(checkpoint: Checkpoint) -> Layout:
    """Return the layout of a checkpoint, or refuse one that does not match its configuration."""
    model = skeleton(checkpoint)
    sources, converters, unknown = _assigned(checkpoint, model)
    _untie(checkpoint, model, sources)
    aliases = aliases_of(model)
    for alias, name in aliases.items():
        if name not in sources and alias in sources:
            sources[name] = sources[alias]
    foreign = _foreign(checkpoint, model, unknown)
    faults = [f"{name}: no parameter of the model" for name in foreign]
    if faults := [*_faults(checkpoint, model, sources, converters), *faults]:
        raise _wrong(
            checkpoint,
            listed(faults),
            "the parameters that config.json asks for",
            "fetch or write the checkpoint again, or pass the loaded model",
        )
    left_out = tuple(name for name in unknown if name not in foreign)
    frozen = MappingProxyType({name: tuple(s) for name, s in sources.items()})
    return Layout(model, frozen, MappingProxyType(converters), left_out)


def _foreign(checkpoint: Checkpoint, model: Any, unknown: list[str]) -> list[str]:
    """Return the float tensors that fit nowhere and that `transformers` does not ignore."""
    patterns = [*(model._keys_to_ignore_on_load_unexpected or ()), _RECOMPUTED]
    computed = {name for name, _ in model.named_buffers()}
    return [
        name
        for name in unknown
        if not any(re.search(pattern, name) for pattern in patterns)
        and name not in computed
        and checkpoint.tensor(name).is_floating_point()
    ]


def _faults(
    checkpoint: Checkpoint,
    model: nn.Module,
    sources: Mapping[str, list[str]],
    converters: Mapping[str, Any],
) -> Iterator[str]:
    """Yield what is wrong with the tensors of each parameter, one line each."""
    for name, parameter in model.named_parameters():
        if name not in sources:
            yield f"{name}: missing"
            continue
        expected = tuple(parameter.shape)
        found = tuple(checkpoint.tensor(sources[name][0]).shape)
        if name not in converters and found != expected:
            yield f"{name}: {found}, by the configuration {expected}"
        if any(checkpoint.tensor(source).dtype not in FLOATS for source in sources[name]):
            yield f"{name}: quantised, not float16 to float64"


def _assigned(
    checkpoint: Checkpoint, model: nn.Module
) -> tuple[dict[str, list[str]], dict[str, Any], list[str]]:
    """Return the tensors of each parameter, the converters, and the tensors left over."""
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
    """Return the recipe of each converted parameter, after a trial on tensors without values."""

    def empty(name: str) -> Tensor:
        return torch.empty_like(checkpoint.tensor(name), device="meta")

    state = model.state_dict()
    converters: dict[str, Any] = {}
    for target, (transform, parts) in groups.items():
        recipe = (target, transform, tuple(parts))
        for made, value in _converted(recipe, empty, model).items():
            if tuple(value.shape) != tuple(state[made].shape):
                found = f"{made} of shape {tuple(value.shape)} from {parts[0][1]} …"
                expected = f"shape {tuple(state[made].shape)}"
                raise _wrong(checkpoint, found, expected, "fetch the checkpoint again")
            converters[made] = recipe
    return converters


def _converted(recipe: Any, read: Callable[[str], Tensor], model: Any) -> dict[str, Tensor]:
    """Return the parameters that one converter makes from tensors, by name."""
    target, transform, parts = recipe
    converter = copy.deepcopy(transform)
    for pattern, name in parts:
        converter.add_tensor(target, name, pattern, lambda name=name: read(name))
    made = converter.convert(target, model=model, config=model.config)
    return {name: t[0] if isinstance(t, list) else t for name, t in made.items()}


def _untie(checkpoint: Checkpoint, model: nn.Module, sources: Mapping[str, list[str]]) -> None:
    """Untie weights that the checkpoint stores twice with different values, like `transformers`."""
    for alias, name in aliases_of(model).items():
        both = alias in sources and name in sources
        if both and not torch.equal(
            checkpoint.tensor(sources[alias][0]), checkpoint.tensor(sources[name][0])
        ):
            owner, _, leaf = alias.rpartition(".")
            value = model.get_parameter(name)
            setattr(model.get_submodule(owner), leaf, nn.Parameter(torch.empty_like(value)))


def aliases_of(model: nn.Module) -> dict[str, str]:
    """Return the other names of tied parameters, each with its name in `named_parameters()`."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    return {name: first[id(p)] for name, p in every if first[id(p)] != name}


def listed(lines: list[str]) -> str:
    """Return the first ten lines, and the number of lines if there are more."""
    more = [f"… {len(lines)} in all"] if len(lines) > _SHOWN else []
    return "\n            ".join([*lines[:_SHOWN], *more])


def _wrong(checkpoint: Checkpoint, found: str, expected: str, do: str) -> CheckpointError:
    what = f"{checkpoint.folder}: these weights are not those of a model that can be read"
    return CheckpointError(what, found=found, expected=expected, do=do)
