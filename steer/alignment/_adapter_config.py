"""What the configuration of a PEFT adapter means, and what of it is refused by name."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from steer.errors import AlignmentError
from steer.network._checkpoint import ADAPTER_CONFIG
from steer.store import read_file

_HARMLESS = frozenset(
    {
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "modules_to_save",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)
_LONGEST = 2**24  # bytes of a configuration
_PATTERN, _REPEATS = 512, 2  # characters, and the most of * + { in them
_UNUSABLE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    re.error,
)
_HARMLESS_STARTS = (True, False, "gaussian", "eva", "orthogonal")  # leave the base as it is


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """A LoRA adapter's scales: alpha / rank, or alpha / √rank where rank-stabilised.

    Args:
        alpha: The default alpha.
        rank: The default rank.
        alpha_pattern: Alpha of modules that a pattern meets.
        rank_pattern: Rank of modules that a pattern meets.
        stabilised: Whether the scale is alpha / √rank (arXiv 2312.03732).
        transposed: Whether modules other than `Linear` store their weight as [in, out].
    """

    alpha: float
    rank: int
    alpha_pattern: Mapping[str, float]
    rank_pattern: Mapping[str, int]
    stabilised: bool
    transposed: bool

    def scale(self, module: str, rank: int) -> float:
        """Return what `B @ A` of a module is multiplied with.

        Args:
            module: The module's name in the base model.
            rank: The rank of its factors.

        Raises:
            AlignmentError: The configuration gives it another rank.
        """
        expected = _by_pattern(self.rank_pattern, module, self.rank)
        if rank != expected:
            raise AlignmentError(
                f"the factors of {module} are not of the rank that {ADAPTER_CONFIG} says",
                found=f"rank {rank}",
                expected=f"rank {expected}",
                do="fetch the adapter again: its scale is alpha / rank",
            )
        alpha: float = _by_pattern(self.alpha_pattern, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.stabilised else rank)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Return the configuration of a LoRA adapter.

    Args:
        folder: The adapter's folder.

    Raises:
        AlignmentError: It is no LoRA, or one of a kind whose difference of weights is not
            scale · B @ A.
    """
    try:
        text = read_file(folder / ADAPTER_CONFIG, AlignmentError, most=_LONGEST).decode()
        return _read(folder, json.loads(text))
    except _UNUSABLE as error:
        if isinstance(error, AlignmentError):
            raise
        raise _refused(
            folder, f"{ADAPTER_CONFIG}: {error!r}", "the configuration that PEFT writes"
        ) from error


def _read(folder: Path, found: dict[str, Any]) -> AdapterConfig:
    if found.get("peft_type") != "LORA":
        raise _refused(folder, f"peft_type {found.get('peft_type')!r}", "LORA")
    if found.get("init_lora_weights", True) not in _HARMLESS_STARTS:
        raise _refused(
            folder,
            f"init_lora_weights {found['init_lora_weights']!r}, which changes the base as well",
            "an adapter that leaves the base as it is (PEFT can convert it when it saves: "
            "path_initial_model_for_weight_conversion)",
        )
    other = sorted(name for name in found if name not in _HARMLESS and found[name])
    if other:
        raise _refused(folder, f"{other[0]} = {found[other[0]]!r}", "plain LoRA")
    alphas, ranks = dict(found.get("alpha_pattern") or {}), dict(found.get("rank_pattern") or {})
    for pattern in (*alphas, *ranks):
        _check_pattern(folder, pattern)
    return AdapterConfig(
        alpha=_finite(found["lora_alpha"]),
        rank=_rank(found["r"]),
        alpha_pattern=MappingProxyType({k: _finite(v) for k, v in alphas.items()}),
        rank_pattern=MappingProxyType({k: _rank(v) for k, v in ranks.items()}),
        stabilised=bool(found.get("use_rslora")),
        transposed=bool(found.get("fan_in_fan_out")),
    )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"a scale of {number}")
    return number


def _rank(value: Any) -> int:
    number = int(value)
    if number < 1:
        raise ValueError(f"a rank of {number}")
    return number


def _check_pattern(folder: Path, pattern: str) -> None:
    """Refuse an expression whose search could take time that grows without a bound."""
    repeats = len(re.findall(r"[*+{]", pattern))
    if len(pattern) > _PATTERN or repeats > _REPEATS or re.search(r"\)[*+{]", pattern):
        found = f"the pattern {pattern!r} of a module's name"
        expected = f"at most {_PATTERN} characters and {_REPEATS} repetitions, none of a group"
        raise _refused(folder, found, expected)
    re.compile(pattern)


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """Return the value of the first pattern that the end of a module's name matches."""
    for pattern, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return value
    return default


def _refused(folder: Path, found: str, expected: str) -> AlignmentError:
    return AlignmentError(
        f"{folder}: this adapter is not read",
        found=found,
        expected=expected,
        do="merge it with PEFT (model.merge_and_unload()), and pass the merged model",
    )
