"""`python -m tests.bench.peak METHOD`: print the peak memory of one method above the model, MiB."""

import ctypes
import gc
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import steer
from tests.bench.peers import recorders
from tests.bench.setting import bench_model, bench_pairs, bench_tokenizer, exchanges, tensors


def main() -> None:
    """Build the model, set the mark back, run, read the mark."""
    torch.set_num_threads(1)
    lm = steer.Model(bench_model(), bench_tokenizer())
    run = _method(sys.argv[1], lm)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed while building, not part of the model
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    sys.stdout.write(json.dumps((_status("VmHWM") - before) / 1024) + "\n")


def _method(name: str, lm: steer.Model) -> Callable[[], object]:
    pairs = bench_pairs()
    texts = exchanges(pairs)
    methods: dict[str, Callable[[], object]] = {
        "bare body, one text at a time": partial(_bare, lm, texts.ids)
    }
    for at in ("response_mean", "template"):
        methods[f"steer, {at}"] = partial(steer.record, lm, pairs, at, progress=False)
    for recorder in recorders():
        run = partial(recorder.run, lm.hf_model, lm.tokenizer, texts.strings)
        methods[recorder.name] = run
    return methods[name]


def _bare(lm: steer.Model, ids: tuple[tuple[int, ...], ...]) -> None:
    with torch.no_grad():
        for row in tensors(ids):
            lm.hf_model.model(row)


def _status(name: str) -> int:
    """Return a figure of this process in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name + ":")).split()[1])


if __name__ == "__main__":
    main()
