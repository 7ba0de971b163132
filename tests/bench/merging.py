"""Merging a setting into bfloat16 weights, disk to disk, beside `mergekit` 0.1.4.

Both read the same two checkpoints and write base + 0.3 · (aligned − base); the aligned one differs
from the base by 1% noise. `mergekit` computes in the dtype of its configuration. The limit is for
float32, which rounds to bfloat16 once; bfloat16, which rounds at each step and is quicker, stands
beside. So does the largest distance from the exact sum, in half steps, on a sample compared with
fractions: 1 is the least that rounding to the nearest can promise.
"""

import contextlib
import io
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch

from steer.merge import merge_checkpoint
from steer.network import Checkpoint
from tests.bench.lines import Limit, Line, exact
from tests.bench.registry import Options, bench
from tests.bench.rounds import Comparison, Method, measure
from tests.bench.setting import bench_model, bench_tokenizer
from tests.merge import exact as reference

_COEFFICIENT = 0.3
_NOISE = 0.01
_SAMPLE = 2000  # weights of each tensor
_DTYPES = ("float32", "bfloat16")


@bench("merging")
def merging(options: Options) -> Iterator[Line]:
    """Merging from disk to disk: CPU time and exactness beside mergekit's task_arithmetic."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_checkpoints(folder)
        ours = partial(_steer, folder)
        theirs = {dtype: partial(_mergekit, folder, dtype) for dtype in _DTYPES}
        ours(0)
        yield _off("merging.off.steer", folder / "steer", folder, Limit(1.0001))
        for dtype, run in theirs.items():
            run(0)
            yield _off(f"merging.off.mergekit_{dtype}", folder / dtype, folder, None)
        yield from measure(
            [Method("steer", ours), *(Method(dtype, run) for dtype, run in theirs.items())],
            [
                Comparison(
                    f"merging.{dtype}",
                    f"base + λ (aligned − base), disk to disk / mergekit computing in {dtype}",
                    "steer",
                    dtype,
                    Limit(0.5) if dtype == "float32" else None,
                )
                for dtype in _DTYPES
            ],
            options.budget,
        )


def _write_checkpoints(folder: Path) -> None:
    model = bench_model().to(torch.bfloat16)
    generator = torch.Generator().manual_seed(1)  # 0 is the model's own
    for name in ("base", "aligned"):
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            model.save_pretrained(folder / name, max_shard_size="50MB")
        bench_tokenizer().save_pretrained(folder / name)
        with torch.no_grad():
            for p in model.parameters():
                noise = torch.randn(p.shape, generator=generator) * _NOISE * float(p.float().std())
                p.copy_(p.float() + noise)


def _steer(folder: Path, number: int) -> None:
    shutil.rmtree(folder / "steer", ignore_errors=True)
    parts = [(folder / "aligned", _COEFFICIENT)]
    merge_checkpoint(folder / "base", parts, folder / "steer", progress=False)


def _mergekit(folder: Path, dtype: str, number: int) -> None:
    run_merge, configuration, merge_options = _imported()
    shutil.rmtree(folder / dtype, ignore_errors=True)
    weighted = {"model": str(folder / "aligned"), "parameters": {"weight": _COEFFICIENT}}
    config = configuration.model_validate(
        {
            "merge_method": "task_arithmetic",
            "base_model": str(folder / "base"),
            "models": [weighted],
            "dtype": dtype,
            "out_dtype": "bfloat16",
        }
    )
    chosen = merge_options(copy_tokenizer=True, quiet=True, write_model_card=False)
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_merge(config, str(folder / dtype), chosen)


def _imported() -> tuple[Any, Any, Any]:
    """Import mergekit, after one shim: it leaves a type unresolved that transformers 5 names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mergekit.architecture import base
        from mergekit.config import MergeConfiguration
        from mergekit.merge import run_merge
        from mergekit.options import MergeOptions

        names = {"torch": torch, **vars(base)}
        base.ConfiguredModuleArchitecture.model_rebuild(_types_namespace=names)
        base.ConfiguredModelArchitecture.model_rebuild(_types_namespace=names)
    return run_merge, MergeConfiguration, MergeOptions


def _off(name: str, merged: Path, folder: Path, limit: Limit | None) -> Line:
    """Return the largest distance of a sampled weight from the exact sum, in half steps."""
    found, base, aligned = map(Checkpoint.open, (merged, folder / "base", folder / "aligned"))
    generator = torch.Generator().manual_seed(0)
    worst, count, λ = 0.0, 0, Fraction(_COEFFICIENT)
    for tensor in base.names:
        size = base.tensor(tensor).numel()
        some = torch.randint(size, (min(_SAMPLE, size),), generator=generator)
        sides = (side.tensor(tensor).reshape(-1)[some].tolist() for side in (base, aligned, found))
        for b, a, m in zip(*sides, strict=True):
            exactly = Fraction(b) + λ * (Fraction(a) - Fraction(b))
            half_step = reference.step(exactly, torch.bfloat16) / 2
            worst, count = max(worst, float(abs(Fraction(m) - exactly) / half_step)), count + 1
    what = f"largest distance of {count} sampled weights from the exact sum, in half steps"
    return Line(name, what, exact(worst), count, limit)
