"""Generated checkpoints of any size, and how much memory their difference takes.

``python -m tests.alignment.memory FOLDER WIDTH LAYERS VOCAB [RANK]`` writes a llama and its
sibling in bfloat16 shards, takes their difference in a process of its own, and prints what it took.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

ROOT = Path(__file__).parents[2]
# glibc raises its limit for mapped blocks when one is freed, and then keeps freed blocks in its
# heap: with a fixed limit, what is counted is what is in use.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
_MEASURE = """
import sys, threading, time, resource
import torch
from steer.alignment import write_alignment_vector
import transformers, safetensors.torch
torch.set_num_threads(1)

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

transformers.LlamaForCausalLM  # load what is loaded lazily
write_alignment_vector(sys.argv[1], sys.argv[2], sys.argv[3], progress=False,
                       include=["model.norm.weight"])
start = peak = anonymous()
running = True

def watch():
    global peak
    while running:
        peak = max(peak, anonymous())
        time.sleep(0.002)

thread = threading.Thread(target=watch)
thread.start()
began = time.process_time()
rank = int(sys.argv[4]) or None
write_alignment_vector(sys.argv[1], sys.argv[2], sys.argv[3], rank=rank, progress=False)
running = False
thread.join()
print((peak - start) * 1024, time.process_time() - began)
"""


def shapes(width: int, layers: int, vocab: int) -> dict[str, tuple[int, ...]]:
    """The parameters of an untied llama with an inner width of three times the outer."""
    found = {"model.embed_tokens.weight": (vocab, width), "lm_head.weight": (vocab, width)}
    found["model.norm.weight"] = (width,)
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for name in ("q", "k", "v", "o"):
            found[f"{prefix}.self_attn.{name}_proj.weight"] = (width, width)
        for name in ("gate", "up"):
            found[f"{prefix}.mlp.{name}_proj.weight"] = (3 * width, width)
        found[f"{prefix}.mlp.down_proj.weight"] = (width, 3 * width)
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{prefix}.{name}.weight"] = (width,)
    return found


def generate(folder: Path, width: int, layers: int, vocab: int, seed: int) -> int:
    """Write a checkpoint, a shard for each layer; return its size in bytes."""
    folder.mkdir(parents=True)
    LlamaConfig(
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        vocab_size=vocab,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)
    files: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes(width, layers, vocab).items():
        number = name.split(".")[2] if ".layers." in name else name.split(".")[-2]
        files.setdefault(f"model-{number}.safetensors", {})[name] = shape
    generator = torch.Generator().manual_seed(seed)
    for file, tensors in files.items():
        made = {n: torch.empty(s).uniform_(-1, 1, generator=generator) for n, s in tensors.items()}
        save_file({n: t.to(torch.bfloat16) for n, t in made.items()}, folder / file)
    index = {name: file for file, tensors in files.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return sum((folder / file).stat().st_size for file in files)


def measure(base: Path, aligned: Path, out: Path, rank: int | None = None) -> tuple[int, float]:
    """Take a difference in another process: peak of anonymous memory above its start, CPU time."""
    arguments = [str(base), str(aligned), str(out), str(rank or 0)]
    run = subprocess.run(
        [sys.executable, "-c", _MEASURE, *arguments],
        cwd=ROOT,
        env=os.environ | _ALLOCATOR,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise RuntimeError(run.stderr)
    peak, seconds = run.stdout.split()
    return int(peak), float(seconds)


def main(folder: str, *sizes: str) -> None:
    """Generate, measure, print."""
    width, layers, vocab, *rank = map(int, sizes)
    began = time.perf_counter()
    paths = [Path(folder) / name for name in ("base", "aligned")]
    size = sum(generate(path, width, layers, vocab, seed) for seed, path in enumerate(paths))
    made = time.perf_counter() - began
    peak, seconds = measure(*paths, Path(folder) / "difference.safetensors", *rank)
    largest = 4 * max(torch.Size(s).numel() for s in shapes(width, layers, vocab).values())
    sys.stdout.write(
        f"{size / 1e9:.2f} GB of checkpoints (made in {made:.0f} s), largest tensor "
        f"{largest / 1e6:.0f} MB in float32: {peak / 1e6:.0f} MB of anonymous memory, "
        f"{peak / largest:.2f} of the largest tensor, {seconds:.0f} s of CPU\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
