"""Merging from disk to disk in bounded memory."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from steer import Vector
from steer.algebra import Dense, Weight
from tests.merge.checkpoints import BF16, tensors
from tests.tiny import tiny_model

_PEAK = """
import re, sys, threading
import torch
from pathlib import Path
from steer.merge import merge_checkpoint
torch.set_num_threads(1)

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

base, part, small, small_part, out = sys.argv[1:]
merge_checkpoint(small, [(small_part, 0.3)], out + "-warm", progress=False)
before, peak, done = anonymous(), 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous())

thread = threading.Thread(target=watch, daemon=True)
thread.start()
merge_checkpoint(base, [(part, 0.3)], out, progress=False)
done.set()
thread.join()
print((peak - before) * 1024)
"""


def pair(folder: Path, form: str, **sizes: int) -> tuple[Path, Path]:
    """A checkpoint in one file, and what is merged into it: a checkpoint, or a dense vector."""
    model = tiny_model("llama", dtype=BF16, layers=1, **sizes)
    model.save_pretrained(folder / "base")
    generator = torch.Generator().manual_seed(0)
    noise = {n: torch.randn(p.shape, generator=generator) for n, p in model.named_parameters()}
    if form == "dense vector file":
        part = folder / "v.safetensors"
        Vector({Weight(n): Dense(t * 0.01) for n, t in noise.items()}).save(part)
        return folder / "base", part
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_((noise[name] * 0.001).to(BF16))
    model.save_pretrained(folder / "aligned")
    return folder / "base", folder / "aligned"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
@pytest.mark.parametrize("form", ["checkpoint", "dense vector file"])
def test_anonymous_memory_is_at_most_two_of_the_largest_tensors(tmp_path: Path, form: str) -> None:
    base, part = pair(tmp_path / "large", form, vocab=16384, width=512)
    small = pair(tmp_path / "small", form)
    largest = max(t.numel() * 2 for t in tensors(base).values())
    arguments = [str(p) for p in (base, part, *small, tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert largest == 2**24
    assert int(done.stdout.split()[-1]) <= 2 * largest
    assert (tmp_path / "out/model.safetensors").stat().st_size > largest
