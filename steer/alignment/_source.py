"""A model whose difference from another is taken: in memory, or a checkpoint on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from steer.algebra import ModelInfo
from steer.errors import AlignmentError, CheckpointError
from steer.model import Model
from steer.network import Checkpoint, Parameters, parameters_in, parameters_of
from steer.network._architecture.probe import original
from steer.network._checkpoint import ADAPTER_CONFIG, BESIDE, fetched
from steer.network._fingerprint import config_info, text_marks, tokenizer_in
from steer.network._parameters.plain import not_plain
from steer.store import path_of

ModelLike = str | Path | Checkpoint | Model | nn.Module


@dataclass(frozen=True, eq=False, slots=True)
class Source:
    """A model by its parameters.

    Args:
        label: What it is called: id, folder, or class.
        parameters: Its parameters.
        info: What identifies it; None for a module without a configuration.
        marks: Fingerprints of tokenizer and chat template, the latter without arguments; empty
            where there is none.
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
    """Return a model as something whose parameters can be read one by one.

    Args:
        model: Folder or Hub id, checkpoint, or model in memory.

    Raises:
        CheckpointError: There are no weights that can be read.
        AlignmentError: Weights are quantised or elsewhere, or an adapter hides the model.
    """
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
    """Return the folder of a PEFT adapter, or None if the model is none.

    Args:
        model: What `alignment_vector` was given.

    Raises:
        CheckpointError: There is no such folder, and no such Hub repository.
    """
    if not isinstance(model, str | Path):
        return None
    path = path_of(model, CheckpointError)
    local = path.is_dir()
    folder = path if local else fetched(str(model), None, BESIDE)
    if not (folder / ADAPTER_CONFIG).is_file():
        return None
    return folder if local else fetched(str(model), None, [*BESIDE, "adapter_model.safetensors"])


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
