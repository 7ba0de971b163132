"""What steering costs a busy server: `python -m tests.engines.speed`.

256 requests in flight with 256 distinct settings over three domains, on a compiled model of 12
layers and width 512, against the same requests unsteered on the same engine, in turn. Times are
CPU times of all processes of the engine, which other programs on the machine hardly change.
"""

import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.engines.subjects import write_vectors
from tests.engines.test_offline import answers, engine, shut_down
from tests.tiny import tiny_tokenizer

ROUNDS, REQUESTS, PROMPT, TOKENS = 9, 256, 32, 24


def main() -> None:
    """Print the medians and their ratio."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        config = LlamaConfig(
            vocab_size=512,
            hidden_size=512,
            intermediate_size=1536,
            num_hidden_layers=12,
            num_attention_heads=8,
            num_key_value_heads=8,
        )
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder / "model")
        tiny_tokenizer(512).save_pretrained(folder / "model")
        vectors = write_vectors(folder / "v", width=512, layers=tuple(range(12)), size=0.1)
        llm = engine(
            folder / "model",
            {"vectors": str(vectors)},
            enforce_eager=False,
            max_num_seqs=REQUESTS,
            max_num_batched_tokens=2048,
            enable_prefix_caching=False,
        )
        plain = [
            {"prompt": [10 + (k + 7 * i) % 500 for i in range(PROMPT)], "tokens": TOKENS}
            for k in range(REQUESTS)
        ]
        settings = [
            {"medical": k / 512, "legal": -k / 256, "financial": 0.1} for k in range(1, 257)
        ]
        kinds = {
            "unsteered": [{**r, "setting": None} for r in plain],
            "steered": [{**r, "setting": s} for r, s in zip(plain, settings, strict=True)],
        }
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for k in range(ROUNDS + 1):
            for kind in sorted(kinds, reverse=bool(k % 2)):
                start = _cpu_seconds()
                answers(llm, kinds[kind])
                if k:  # the first round warms up
                    times[kind].append(_cpu_seconds() - start)
        shut_down(llm)
    medians = {kind: statistics.median(own) for kind, own in times.items()}
    ratios = [a / b for a, b in zip(times["steered"], times["unsteered"], strict=True)]
    sys.stdout.write(
        f"CPU time: unsteered {medians['unsteered']:.2f} s, steered {medians['steered']:.2f} s, "
        f"ratio {medians['steered'] / medians['unsteered']:.3f}, limit 1.05 (rounds: "
        f"{', '.join(f'{r:.3f}' for r in sorted(ratios))})\n"
    )


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of all that it started."""
    own = psutil.Process()
    found = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(times.user + times.system for times in found)


if __name__ == "__main__":
    main()
