"""Where a model and its tokenizer are: a folder, a GGUF file, an adapter, or a name on the Hub."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steer._check import need
from steer.errors import CheckpointError
from steer.model._loading.options import check_precisions, placed, said
from steer.network._checkpoint import ADAPTER_CONFIG, CONFIG, TOKENIZERS


@dataclass(frozen=True, slots=True)
class Location:
    """Where a model and its tokenizer are."""

    name: str  # hub id or folder of the model, as transformers takes it
    options: Mapping[str, Any]  # options of its `from_pretrained`
    tokenizer: str  # hub id or folder of the tokenizer
    called: str  # what the model is called: its name, or its GGUF file
    # Where to move it once it is loaded; None where the options say it already
    device: torch.device | None = None


def located(
    name: str | Path, options: Mapping[str, Any], device: str | int | torch.device | None = None
) -> Location:
    """Return where a model is, after all that can be checked without loading it."""
    given = _name_of(name)
    options = dict(options)
    moved = placed(options, device)
    check_precisions(options)
    if os.path.isfile(given):
        given, options["gguf_file"] = _split_file(given, options)
    file = options.get("gguf_file")
    called = given if file is None else str(Path(given) / file)
    folder, base = Path(given, options.get("subfolder") or ""), given
    if os.path.isdir(given):
        base = _base_of(folder) or given
        if base == given:
            _check_folder(folder, options)
    else:
        _check_id(given)
    if file is not None:
        need("reading a GGUF file", "gguf", "accelerate", extra="gguf")
        options.setdefault("quantization_config", _dequantised())
    own = any((folder / file).is_file() for file in TOKENIZERS)
    return Location(given, options, given if own else base, called, moved)


def _name_of(name: object) -> str:
    given = os.fspath(name) if isinstance(name, str | os.PathLike) else None
    if isinstance(given, str) and given.strip() and "\0" not in given:
        return given
    raise CheckpointError(
        "this is not the name of a model",
        found=f"{type(name).__name__} {name!r}"[:200],
        expected="the id of a model on the Hub, a folder, or a GGUF file",
        do="a model that is loaded already is wrapped: steer.Model(hf_model, tokenizer)",
    )


def _check_id(name: str) -> None:
    """Refuse a name that is neither a path nor a valid Hub id, before asking the Hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise CheckpointError(
            "this is not the name of a model: there is no such folder or file",
            found=repr(name)[:200],
            expected="a folder or GGUF file that is there, or the id of a model on the Hub: "
            "letters, digits, '-', '_' and '.', after the name of its owner",
            do=f"check a path, which is relative to {Path.cwd()}; '~' is not expanded",
        ) from error


def _dequantised() -> Any:
    """Return the option that gives plain weights on every machine, whatever kernels it has."""
    import transformers

    known = getattr(transformers, "GgufConfig", None)  # versions without it do nothing else
    return None if known is None else known(dequantize=True)


def _split_file(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """Return folder and name of a GGUF file that stands for its model."""
    folder, file = os.path.split(name)
    if not file.lower().endswith(".gguf") or options.get("gguf_file") is not None:
        raise CheckpointError(
            "this is a file, and a model is a folder",
            found=name,
            expected=f"the folder with {CONFIG}, weights and tokenizer; of files, GGUF alone, "
            "without gguf_file",
            do=f"pass {folder or '.'!r}; a vector file is read with steer.Vector.load",
        )
    return folder or ".", file


def _check_folder(folder: Path, options: Mapping[str, Any]) -> None:
    """Refuse a folder without the model, naming its contents."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    ggufs = [name for name in names if name.endswith(".gguf")]
    file = options.get("gguf_file")
    wanted = CONFIG if file is None else str(file)
    if (folder / wanted).is_file() or (file is None and options.get("config") is not None):
        return
    raise CheckpointError(
        f"{folder}: there is no model in this folder"
        + ("" if file is None else f" under gguf_file={file!r}"),
        found=", ".join((ggufs or names)[:8]) or "nothing",
        expected=f"{CONFIG} with weights beside it, a LoRA adapter, or a GGUF file that is named",
        do=f"pass gguf_file={ggufs[0]!r}, or the path of the file itself"
        if ggufs
        else "name the folder that model.save_pretrained(folder) wrote",
    )


def _base_of(folder: Path) -> str | None:
    """Return the base that an adapter's folder names; None if it holds no adapter."""
    if not (folder / ADAPTER_CONFIG).is_file():
        return None
    try:
        named = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        base = named["base_model_name_or_path"]
        if not os.path.isdir(_name_of(base)):
            _check_id(base)
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = error.found if isinstance(error, CheckpointError) else said(error)
        raise CheckpointError(
            f"{folder}: the base of this adapter is not there",
            found=f"base_model_name_or_path in {ADAPTER_CONFIG}: {found}",
            expected="the folder or Hub id of the model that the adapter was trained on",
            do="load the base, and put the adapter on it: PeftModel.from_pretrained(base, "
            "folder), or steer with steer.alignment_vector(base, folder)",
        ) from error
    need("loading an adapter", "peft", extra="tune")
    return str(base)
