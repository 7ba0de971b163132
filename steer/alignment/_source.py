"""The two sides of a difference: reading their parameters, comparing and subtracting them."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steer.algebra import Dense, ModelInfo
from steer.errors import AlignmentError, CheckpointError
from steer.model import Model
from steer.network import Checkpoint
from steer.network._architecture.probe import original
from steer.network._checkpoint import ADAPTER_CONFIG, BESIDE, fetched
from steer.network._compatibility import config_differences, refuse_or_warn, text_differences
from steer.network._fingerprint import config_info, text_marks, tokenizer_in
from steer.network._parameters.layout import listed
from steer.network._parameters.parameters import (
    Parameters,
    not_plain,
    parameters_in,
    parameters_of,
)
from steer.store import path_of

ModelLike = str | Path | Checkpoint | Model | nn.Module

_BLOCK = 2**17  # elements converted at a time: small, so that freed memory is used again


@dataclass(frozen=True, eq=False, slots=True)
class Source:
    """The parameters of a model, with its name and its fingerprints of tokenizer and template.

    `info` is None for a module without a configuration.
    """

    label: str
    parameters: Parameters
    info: ModelInfo | None
    marks: tuple[str, str] = ("", "")

    @property
    def config(self) -> Any:
        """The configuration; None if there is none."""
        return getattr(self.parameters.model, "config", None)


def opened(model: ModelLike) -> Source:
    """Return a model as a source; refuse quantised or offloaded weights and PEFT wrappers."""
    if isinstance(model, Model):
        hf_model, info = original(model.hf_model), model.info
        _check_readable(hf_model)
        marks = text_marks(model.tokenizer if info.tokenizer else None)
        return Source(info.model_id, parameters_of(hf_model), info, marks)
    if isinstance(model, nn.Module):
        model = original(model)
        _check_readable(model)
        label = str(getattr(getattr(model, "config", None), "_name_or_path", ""))
        return _source(label or type(model).__name__, None, parameters_of(model), None)
    checkpoint = model if isinstance(model, Checkpoint) else Checkpoint.open(model)
    label = str(checkpoint.folder if isinstance(model, Checkpoint) else model)
    tokenizer = tokenizer_in(checkpoint.folder)
    return _source(label, _commit(checkpoint.folder), parameters_in(checkpoint), tokenizer)


def adapter_folder(model: ModelLike) -> Path | None:
    """Return the local folder of a PEFT adapter; None if the model is not an adapter."""
    if not isinstance(model, str | Path):
        return None
    path = path_of(model, CheckpointError)
    local = path.is_dir()
    folder = path if local else fetched(str(model), None, BESIDE)
    if not (folder / ADAPTER_CONFIG).is_file():
        return None
    return folder if local else fetched(str(model), None, [*BESIDE, "adapter_model.safetensors"])


def included(source: Source, include: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the parameters that match any of some shell patterns; None is all."""
    names = tuple(source.parameters.shapes)
    for pattern in include or ():
        if not fnmatch.filter(names, pattern):
            raise AlignmentError(
                "include matches no parameter",
                found=repr(pattern),
                expected=f"patterns of names such as {names[0]}",
                do="use * for any text",
            )
    return tuple(name for name in names if _matches(name, include))


def check_comparable(
    base: Source, aligned: Source, include: Sequence[str] | None, *, strict: bool
) -> None:
    """Refuse two models whose difference has no meaning.

    Unless `strict`, a different configuration, tokenizer or template only gives a warning.
    Parameters that `include` omits are not compared.
    """
    _check_shapes(base, aligned, include)
    lines = config_differences(_text_config(base), _text_config(aligned))
    lines += text_differences(base.marks, aligned.marks)
    refuse_or_warn(base.label, aligned.label, lines, AlignmentError, strict=strict)
    _check_buffers(base, aligned)


def _check_shapes(base: Source, aligned: Source, include: Sequence[str] | None) -> None:
    left, right = base.parameters.shapes, aligned.parameters.shapes
    lines = []
    for name in dict.fromkeys((*left, *right)):
        if _matches(name, include) and left.get(name) != right.get(name):
            shapes = [str(side.get(name, "missing")) for side in (left, right)]
            lines.append(f"{name}: {shapes[0]} and {shapes[1]}")
    if lines:
        raise AlignmentError(
            f"{base.label} and {aligned.label} are not of one architecture",
            found=listed(lines),
            expected="the same parameters of the same shapes",
            do="take two checkpoints of one model; where only the vocabulary grew, leave its "
            "parameters out with include=['model.layers.*']",
        )


def _check_buffers(base: Source, aligned: Source) -> None:
    """Refuse trained buffers that differ; integer and unsaved buffers are not compared."""
    differing = [
        name
        for name in base.parameters.buffers
        if name in aligned.parameters.buffers
        and not torch.equal(base.parameters.read(name), aligned.parameters.read(name))
    ]
    if differing:
        raise AlignmentError(
            "buffers of the two models differ",
            found=listed(differing),
            expected="a difference in parameters only",
            do="use the aligned model as it is: a buffer is not a site of a vector",
        )


def _matches(name: str, include: Sequence[str] | None) -> bool:
    return include is None or any(fnmatch.fnmatchcase(name, pattern) for pattern in include)


def _text_config(source: Source) -> Mapping[str, Any]:
    return {} if source.config is None else source.config.get_text_config().to_dict()


def subtract(name: str, aligned: Tensor, base: Tensor) -> Dense | None:
    """Return aligned − base in float32, or None where they are equal.

    The subtraction is exact for values of 8 or 11 bits (bfloat16, float16) whose exponents are at
    most 16 or 13 apart, as those of a weight before and after training are, and for float32 values
    within a factor of two of each other. Elsewhere the result is the float32 nearest to the exact
    difference, with a relative error of at most 2⁻²⁴. Float64 is subtracted in float64 and rounded
    once.
    """
    if aligned.numel() == 0:
        return None
    difference = torch.empty(aligned.shape, dtype=torch.float32)
    wide = torch.float64 if torch.float64 in (aligned.dtype, base.dtype) else torch.float32
    parts = (tensor.reshape(-1).split(_BLOCK) for tensor in (difference, aligned, base))
    for out, left, right in zip(*parts, strict=True):
        out.copy_(left.to(wide) - right.to(wide))
    low, high = (float(end) for end in torch.aminmax(difference))
    if not (-torch.inf < low and high < torch.inf):
        bad = int((~difference.isfinite()).sum())
        raise AlignmentError(
            f"the difference of {name} is not finite",
            found=f"{bad} of {difference.numel()} values are NaN or infinite",
            expected="finite weights in both models",
            do="check both checkpoints: a training run that diverged leaves such values",
        )
    return Dense(difference) if low < 0.0 or high > 0.0 else None


def _source(label: str, revision: str | None, parameters: Parameters, tokenizer: Any) -> Source:
    config: Any = getattr(parameters.model, "config", None)
    if config is None:
        return Source(label, parameters, None)
    info = config_info(label, revision, config, tokenizer)
    return Source(label, parameters, info, (info.tokenizer, info.template))


def _commit(folder: Path) -> str | None:
    """Return the commit of a folder in the Hub's cache: `…/snapshots/<commit>`."""
    return folder.name if folder.parent.name == "snapshots" else None


def _check_readable(model: nn.Module) -> None:
    if hasattr(model, "peft_config"):
        raise _unreadable(
            "a model inside a PEFT adapter",
            "save the adapter and pass its folder, or pass adapter.merge_and_unload()",
        )
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise _unreadable(f"{name} is offloaded", "pass the checkpoint's folder instead")
    found = next(not_plain(model), None)
    if found is not None:
        raise _unreadable(found, "load the model that it was quantised from, with dtype='auto'")


def _unreadable(found: str, do: str) -> AlignmentError:
    return AlignmentError(
        "the weights of this model cannot be read",
        found=found,
        expected="plain tensors of float16 to float64 in memory: the difference of quantised "
        "weights is mostly the error of their quantisation",
        do=do,
    )
