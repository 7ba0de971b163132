"""The configuration of a PEFT LoRA adapter, read by PEFT; variants are refused by name."""

import json
import math
import re
from collections.abc import Mapping, Set
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer._check import need
from steer.errors import AlignmentError
from steer.network._checkpoint import ADAPTER_CONFIG
from steer.store import read_file

if TYPE_CHECKING:
    from peft import LoraConfig

_PLAIN = frozenset(  # LoRA's options under which the difference of weights is scale · B @ A
    {
        "alpha_pattern",
        "bias",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "modules_to_save",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "runtime_config",
        "target_modules",
        "use_rslora",
    }
)
_PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")  # these leave the base as it is
_LONGEST = 2**24  # bytes of a configuration
_PATTERN, _REPEATS = 512, 2  # characters of a pattern, and repetitions in it
_UNUSABLE = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError)


def read_adapter_config(folder: Path) -> "LoraConfig":
    """Return the configuration of a plain LoRA adapter; refuse other methods and variants."""
    need("reading a LoRA adapter", "peft", extra="tune")
    from peft import LoraConfig, PeftConfig

    known = {field.name for field in fields(LoraConfig)}
    plain = _PLAIN | {field.name for field in fields(PeftConfig)}
    text = read_file(folder / ADAPTER_CONFIG, AlignmentError, most=_LONGEST)
    try:
        found = json.loads(text.decode())
        _check_plain(folder, found, plain)
        config = LoraConfig(**{name: v for name, v in found.items() if v or name in known})
        for alpha in (config.lora_alpha, *(config.alpha_pattern or {}).values()):
            if not math.isfinite(float(alpha)):
                raise ValueError(f"alpha {alpha}")
    except AlignmentError:
        raise
    except (*_UNUSABLE, re.error) as error:
        raise _refused(
            folder, f"{ADAPTER_CONFIG}: {error!r}", "the configuration that PEFT writes"
        ) from error
    return config


def scale_of(config: "LoraConfig", module: str, rank: int) -> float:
    """Return the factor of `B @ A`: α / rank, or α / √rank if stabilised (arXiv 2312.03732)."""
    expected = _of_module(config.rank_pattern, module, config.r)
    if rank != expected:
        raise AlignmentError(
            f"the factors of {module} do not have the rank of {ADAPTER_CONFIG}",
            found=f"rank {rank}",
            expected=f"rank {expected}",
            do="fetch the adapter again: its scale is alpha / rank",
        )
    alpha = float(_of_module(config.alpha_pattern, module, config.lora_alpha))
    return alpha / (math.sqrt(rank) if config.use_rslora else rank)


def _of_module(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """Return the value of the first pattern that matches the end of a module's name."""
    from peft.utils.other import get_pattern_key

    return (patterns or {}).get(get_pattern_key(patterns or {}, module), default)


def _check_plain(folder: Path, found: dict[str, Any], plain: Set[str]) -> None:
    """Refuse an adapter whose difference of weights is not scale · B @ A."""
    if found.get("peft_type") != "LORA":
        raise _refused(folder, f"peft_type {found.get('peft_type')!r}", "LORA")
    if found.get("init_lora_weights", True) not in _PLAIN_STARTS:
        raise _refused(
            folder,
            f"init_lora_weights {found['init_lora_weights']!r}, which changes the base as well",
            "an adapter that leaves the base as it is (PEFT can convert it when it saves: "
            "path_initial_model_for_weight_conversion)",
        )
    other = sorted(name for name in found if name not in plain and found[name])
    if other:
        raise _refused(folder, f"{other[0]} = {found[other[0]]!r}", "plain LoRA")
    for pattern in (*(found.get("alpha_pattern") or ()), *(found.get("rank_pattern") or ())):
        repeats = len(re.findall(r"[*+{]", pattern))
        if len(pattern) > _PATTERN or repeats > _REPEATS or re.search(r"\)[*+{]", pattern):
            raise _refused(  # matching it could take exponential time
                folder,
                f"the pattern {pattern!r} of a module's name",
                f"at most {_PATTERN} characters and {_REPEATS} repetitions, none of a group",
            )
        re.compile(pattern)


def _refused(folder: Path, found: str, expected: str) -> AlignmentError:
    return AlignmentError(
        f"{folder}: this adapter is not supported",
        found=found,
        expected=expected,
        do="merge it with PEFT (model.merge_and_unload()), and pass the merged model",
    )
