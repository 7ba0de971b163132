"""Options of `from_pretrained`: which hold for the tokenizer too, and which are refused."""

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import torch

from steer._check import need, one_of
from steer.errors import CapabilityError

PRECISIONS: Mapping[str, torch.dtype] = MappingProxyType(
    {str(d)[6:]: d for d in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}
)
OF_BOTH = (  # options of `from_pretrained` that say where to find model and tokenizer
    "cache_dir",
    "force_download",
    "gguf_file",
    "local_files_only",
    "revision",
    "subfolder",
    "token",
    "trust_remote_code",
)
_SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")  # names of maps, not of devices


def shared_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options of a model's `from_pretrained` that say where its files are."""
    return {name: options[name] for name in OF_BOTH if name in options}


def placed(options: dict[str, Any], device: str | int | torch.device | None) -> torch.device | None:
    """Enter a device into a model's options; return it where the model must be moved there."""
    mapped = options.get("device_map")
    if device is None:
        if isinstance(mapped, str | int | float | torch.device):
            _check_device(mapped)
        return None
    if mapped is not None:
        raise CapabilityError(
            "the device is given twice",
            found=f"device={device!r} and device_map={mapped!r}",
            expected="one of both",
            do="leave out device_map; device takes what it takes",
        )
    known = _check_device(device)
    if known is None or find_spec("accelerate") is not None:
        need(f"device={device!r}", "accelerate")
        options["device_map"] = device
        return None
    return known


def _check_device(device: Any) -> torch.device | None:
    """Return a device that tensors can be put on; None for a way to spread a model over several."""
    if device in _SPREAD:
        return None
    try:
        return torch.empty(1, device=torch.device(device)).device
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise CapabilityError(
            "this device does not exist",
            found=f"{device!r}: {said(error)}",
            expected=f"cpu, cuda, cuda:1, mps, …, or {' | '.join(_SPREAD)}",
            do="leave it out for the default, or take one that torch has on this machine",
        ) from error


def check_precisions(options: Mapping[str, Any]) -> None:
    """Refuse a precision that no model can be loaded in."""
    for name in ("dtype", "torch_dtype"):
        value = options.get(name, "auto")
        if not isinstance(value, Mapping):
            one_of(name, value, (None, "auto", *PRECISIONS, *PRECISIONS.values()))


def said(error: Exception) -> str:
    """Return the class and the beginning of the message of another library's error."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words if len(words) <= 400 else words[:400] + ' …'}"
