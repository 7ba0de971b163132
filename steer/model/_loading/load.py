"""Loading a model and its tokenizer with transformers, with errors that name the cause."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from steer.errors import ArchitectureError, CapabilityError, CheckpointError, TextError
from steer.model._loading.location import Location
from steer.model._loading.options import OF_BOTH, said, shared_options
from steer.network._architecture.find import PartNames

_KNOWN = (*OF_BOTH, *PartNames.__annotations__, "device", "device_map", "dtype", "tokenizer")
_RAISED = (OSError, ValueError, KeyError, IndexError, AttributeError, RuntimeError)


def load_tokenizer(location: Location) -> Any:
    """Return a model's own tokenizer; that of a GGUF file is inside it."""
    from transformers import AutoTokenizer

    options = shared_options(location.options) if location.tokenizer == location.name else {}
    try:
        return AutoTokenizer.from_pretrained(location.tokenizer, **options)
    except ImportError:
        raise
    except Exception as error:  # the tokenizers library raises no class of its own
        if isinstance(error, OSError) or "gguf_file" in options:
            raise _unloadable(location, error) from error
        raise TextError(
            "this model has no tokenizer that can be read",
            found=f"{location.tokenizer}: {said(error)}",
            expected="a tokenizer beside the weights (tokenizer.json, tokenizer_config.json)",
            do="save it there, tokenizer.save_pretrained(directory), or pass tokenizer=…",
        ) from error


def load_model(location: Location) -> Any:
    """Return a Hugging Face causal model, in evaluation mode, named after its location."""
    from transformers import AutoModelForCausalLM

    with loading(location):
        model = AutoModelForCausalLM.from_pretrained(location.name, **location.options)
    model.config._name_or_path = location.called
    if getattr(model, "_hf_peft_config_loaded", False):
        model.config._commit_hash = None  # it is the base's
    return model if location.device is None else model.to(location.device)


def check_loaded(hf_model: object, tokenizer: object) -> None:
    """Refuse objects that are not a loaded model or a loaded tokenizer."""
    if not isinstance(hf_model, nn.Module):
        raise ArchitectureError(
            "this is not a model",
            found=f"{type(hf_model).__name__} {hf_model!r}"[:200],
            expected="a causal language model of transformers, or what wraps one",
            do="load one by its name: steer.Model.from_pretrained(name); of a steer.Model pass "
            "its hf_model",
        )
    if tokenizer is not None and not callable(tokenizer):
        raise TextError(
            "this is not a tokenizer",
            found=f"{type(tokenizer).__name__} {tokenizer!r}"[:200],
            expected="a Hugging Face tokenizer, or None",
            do="load it: transformers.AutoTokenizer.from_pretrained(name)",
        )


@contextmanager
def loading(location: Location) -> Iterator[None]:
    """Say of errors of transformers which model could not be loaded."""
    from safetensors import SafetensorError

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is None or unknown[1] not in location.options:
            raise _unloadable(location, error) from error
        near = get_close_matches(unknown[1], _KNOWN, n=1)
        raise CapabilityError(
            "this model takes no such option",
            found=f"{unknown[1]}={location.options[unknown[1]]!r}"[:200],
            expected=f"an option of from_pretrained: {', '.join(_KNOWN)}, …",
            do=f"write {near[0]}" if near else "leave it out",
        ) from error
    except (*_RAISED, SafetensorError) as error:
        raise _unloadable(location, error) from error


def _unloadable(location: Location, error: Exception) -> CheckpointError:
    advice = "fetch or write it again, into an empty folder"
    if not os.path.isdir(location.name):
        advice = "there is no folder of that name: check it, the network, and access to the Hub"
        if "/" not in location.name:
            advice += (
                "; most ids are owner/name, as in HuggingFaceTB/SmolLM2-135M-Instruct; the demo "
                "models are loaded by steer.demo.load_model() and steer.demo.smollm2.load()"
            )
    return CheckpointError(
        f"{location.called}: this model cannot be loaded",
        found=said(error),
        expected="a causal language model of transformers, its weights and its tokenizer",
        do=advice,
    )
